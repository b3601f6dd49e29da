"""What clips are drawn under: a first frame, a rate, a strength of motion, and what others read."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.autoencoders import FrozenEncoder
from anylatent.core.support.files import UserError
from anylatent.modalities.video.autoencoder import FramesAutoencoder
from anylatent.modalities.video.conditioner import ClipConditioner
from tests.modalities.video.small import conv

SHAPE = (1, 32, 32)
CLASSES = {"kind": ["one", "two", "three"]}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return FrozenEncoder(FramesAutoencoder(SHAPE, conv).eval())


def made(encoder, *also, about=None, **settings):
    return ClipConditioner(encoder, SHAPE, (1.0, 2.0, 4.0), about, also=also, **settings)


def pictures(n=3):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_contract(encoder):
    label = al.get("conditioner", "label")(CLASSES)
    conditioner = made(encoder, "first", "motion", "rate", about=label)
    assert conditioner.columns == ["kind", "first", "motion", "rate"]
    columns = {
        "kind": ["one", 2, "Two"],
        "first": list(pictures()),
        "motion": [0.0, 2.0, 7],
        "rate": [8, 4.0, 16],
    }
    al.testing.check_conditioner(conditioner, columns)


def test_numbers_are_told_in_octaves_and_logarithms(encoder):
    conditioner = made(encoder, "motion", "rate")
    cond = conditioner.learned(conditioner({"motion": [2.0, 0.0], "rate": [8.0, 32.0]}))
    assert cond.values["rate"].tolist() == [0.0, 2.0]
    wanted = torch.tensor([0.0, math.log(0.1 / 2.1)])
    assert torch.allclose(cond.values["motion"], wanted, atol=1e-6)
    frames = [torch.tensor([1.0, 3.0, 2.0]), torch.zeros(3)]
    again = conditioner.learned(conditioner({"motion": frames, "rate": [8.0, 32.0]}))
    assert torch.allclose(again.values["motion"], wanted, atol=1e-6), "the mean of the frames"


def test_of_a_window_its_own_frames_count(encoder):
    """What is cached is cut as the clips are."""
    conditioner = made(encoder, "first", "motion")
    video = pictures(10).view(2, 5, *SHAPE)
    moved = torch.arange(10.0).view(2, 5)
    cond = conditioner({"first": video, "motion": moved})
    rows = cond.values["first"]
    cut = al.Latent({"rows": rows["rows"][:, 2:4]}, {"rows": rows.masks["rows"][:, 2:4]}, rows.spec)
    told = cond.values["motion"]
    some = al.Latent(
        {"pace": told["pace"][:, 2:4]}, {"pace": told.masks["pace"][:, 2:4]}, told.spec
    )
    found = conditioner.learned(al.Condition({"first": cut, "motion": some}, cond.keep))
    asked = {"first": list(video[:, 2])}
    wanted = conditioner.learned(conditioner(asked)).values["first"]
    assert torch.allclose(found.values["first"]["grid"], wanted["grid"], atol=1e-5)
    assert torch.allclose(found.values["first"]["vector"], wanted["vector"], atol=1e-5)
    each = ((moved[:, 2:4].mean(1) + 0.1) / 2.1).log()
    assert torch.allclose(found.values["motion"], each, atol=1e-6)


def test_noise_on_the_first_frame_is_of_the_level_that_is_told(encoder):
    conditioner = made(encoder, "first", noise=0.5)
    cond = conditioner({"first": pictures()[:, None].expand(-1, 4, -1, -1, -1)})
    clean = conditioner.learned(cond).values["first"]
    noise = al.Noise.of(1, 3)
    varied = conditioner.learned(conditioner.vary(cond, noise)).values["first"]
    levels = 0.5 * al.Noise.of(1, 3).uniform().float()
    spread = clean["grid"].flatten(1).std(1)
    gap = (varied["grid"] - clean["grid"]).flatten(1).std(1) / spread
    assert torch.allclose(gap, levels, rtol=0.25)
    told = conditioner.levels(4 * levels)
    assert torch.allclose(varied["vector"][:, -told.shape[1] :], told.float())
    still = made(encoder, "first", noise=0.0)
    same = still.learned(still.vary(cond, al.Noise.of(1, 3))).values["first"]
    assert torch.equal(same["grid"], clean["grid"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"motion": [-1.0]}, "a number of 0 or more"),
        ({"motion": ["fast"]}, "a number of 0 or more"),
        ({"rate": [0.0]}, "0.001 or more"),
        ({"rate": [math.inf]}, "0.001 or more"),
        ({"rate": [True]}, "0.001 or more"),
        ({"kind": [1]}, "no condition kind"),
        ({"first": [torch.zeros(3, 8, 8)]}, "is wanted"),
    ],
)
def test_what_can_not_be_told(encoder, columns, message):
    with pytest.raises((ValueError, UserError), match=message):
        made(encoder, "first", "motion", "rate")(columns)


@pytest.mark.parametrize("also", [["second"], ["first", "Motion"]])
def test_unknown_kinds(encoder, also):
    with pytest.raises(UserError, match="may name first, motion, rate"):
        made(encoder, *also)


def test_motion_must_have_been_measured(encoder):
    with pytest.raises(UserError, match=r"data\.motion=true"):
        ClipConditioner(encoder, SHAPE, (0.0, 0.0, 0.0), also=("motion",))


def test_one_name_for_two_things(encoder):
    other = al.get("conditioner", "label")({"rate": ["slow", "fast"]})
    with pytest.raises(UserError, match="reads rate too"):
        made(encoder, "rate", about=other)
