"""Bouncing digits."""

import pytest
import torch

import anylatent as al
from anylatent.core.support.columns import Window
from anylatent.core.support.files import UserError
from anylatent.modalities.image.data import Mnist
from anylatent.modalities.video.data.moving_mnist import MovingMnist, bounced


@pytest.fixture(scope="module")
def data():
    return MovingMnist(clips=40, most=20)


def test_they_keep_the_contract_of_data(data):
    al.testing.check_data(data)


def test_they_bounce():
    times = torch.arange(0, 200, dtype=torch.float64)
    place = bounced(5 + 3.0 * times, 36.0)
    assert place[0] == 5 and float(place.min()) >= 0 and float(place.max()) <= 36
    steps = place.diff().abs()
    turning = (place[1:] < 3) | (place[1:] > 33) | (place[:-1] < 3) | (place[:-1] > 33)
    assert torch.allclose(steps[~turning], torch.tensor(3.0, dtype=torch.float64))
    # a triangle wave of period 72
    assert torch.allclose(place[:-24], bounced(5 + 3.0 * (times + 24), 36.0)[:-24])


def test_digits_move_straight_on_at_their_pace():
    item = MovingMnist(clips=30, pace=2.0, digits=1, seed=3).train()[7]
    places = item["places"][:, 0].double()
    steps = places.diff(dim=0).abs()
    free = ((places > 3) & (places < 33)).all(1)
    inside = free[1:] & free[:-1]
    assert inside.sum() > 3
    # rounded to whole pixels, the mean step is the pace's share in each direction
    pace = steps[inside].mean(0).square().sum().sqrt()
    assert abs(float(pace) - 2.0) < 0.3


def test_the_digits_are_where_it_says(data):
    item, pixels = data.train()[3], Mnist(28).train().pixels[:, 0]
    known = {bytes(p.numpy().tobytes()) for p in pixels}
    video = ((item["video"] + 1) * 127.5).round().to(torch.uint8)
    apart = [t for t, at in enumerate(item["places"]) if bool(((at[0] - at[1]).abs() >= 28).any())]
    for t in apart[:3]:
        for top, left in item["places"][t].tolist():
            assert video[t, 0, top : top + 28, left : left + 28].numpy().tobytes() in known
    assert item["caption"].split(" and ")[0].startswith("a ") and len(item["digits"]) == 2


def test_held_out_clips_have_digits_of_their_own():
    data = MovingMnist(clips=300, most=100, digits=1)
    split = Mnist(28)

    def crops(part):
        found = set()
        for item in part:
            top, left = item["places"][0, 0].tolist()
            crop = ((item["video"][0, 0] + 1) * 127.5).round().to(torch.uint8)
            found.add(crop[top : top + 28, left : left + 28].numpy().tobytes())
        return found

    train, held = (crops([p[i] for i in range(len(p))]) for p in (data.train(), data.held_out()))
    assert not train & held and len(held) > 50
    real = {p.numpy().tobytes() for p in split.held_out().pixels[:, 0]}
    assert held <= real


def test_windows_are_parts_of_the_whole(data):
    part = data.train()
    whole, cut = part[5], part[Window(5, 4, 9)]
    assert cut["frames"] == 5 and torch.equal(cut["video"], whole["video"][4:9])
    assert torch.equal(cut["places"], whole["places"][4:9])
    assert torch.equal(cut["first"], whole["video"][4])
    with pytest.raises(IndexError, match="video 40 of 40"):
        part[40]


def test_facts_say_rate_frames_and_motion():
    data = MovingMnist(size=32, pace=1.8, frames=10, rate=5.0, clips=20)
    facts = data.facts
    assert facts["shape"] == [1, 32, 32] and facts["frames"] == 10 and facts["rate"] == 5.0
    assert facts["motion"] == [0.0] * 3, "it was not measured"


def test_clips_of_different_paces_move_differently():
    data = MovingMnist(clips=60, digits=1, slowest=0.0, pace=4.0, motion=True)
    part = data.train()
    steps = part.step.square().sum(-1).sqrt().flatten()
    assert float(steps.min()) < 0.5 and float(steps.max()) > 3.5
    measured = torch.stack([part[i]["motion"].mean() for i in range(60)]).double()
    both = torch.stack([steps, measured])
    assert float(torch.corrcoef(both)[0, 1]) > 0.8
    low, middle, high = data.facts["motion"]
    assert 0 < low < middle < high


@pytest.mark.parametrize(
    "settings", [{"size": 30}, {"frames": 0}, {"pace": -1.0}, {"most": 0}, {"slowest": 5.0}]
)
def test_bad_settings(settings):
    with pytest.raises(UserError):
        MovingMnist(**settings)
