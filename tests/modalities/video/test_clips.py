"""Clips as outputs: files, sheets, lengths of their own."""

import av
import numpy as np
import pytest
import torch

import anylatent as al
from anylatent.modalities.shared.movies import write_movie
from anylatent.modalities.video.clips import Clips, to_bytes
from anylatent.modalities.video.data import MovingMnist


def opened(path):
    """All frames of a film, and how many are shown a second."""
    with av.open(str(path)) as file:
        rate = file.streams.video[0].average_rate
        return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)]), rate


READERS = {".mp4": opened, ".mkv": opened}


def clips(lengths=(5, 3, 8), shape=(3, 16, 12), **settings):
    frames = torch.rand(len(lengths), max(lengths), *shape) * 2.4 - 1.2
    return Clips(frames, torch.tensor(lengths), **settings)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("lossless", [False, True])
def test_they_keep_the_contract_of_outputs(channels, lossless):
    al.testing.check_outputs(clips(shape=(channels, 16, 12), lossless=lossless), READERS)


@pytest.mark.parametrize("shape", [(3, 15, 13), (1, 7, 8), (3, 16, 12)])
def test_lossless_files_have_every_pixel(shape, tmp_path):
    made = clips(shape=shape, rate=12.0).exact()
    for clip, path in zip(made, made.save(tmp_path, ["a", "b", "c"]), strict=True):
        frames, rate = opened(path)
        assert rate == 12 and frames.shape == (len(clip), *shape[1:], 3)
        assert (frames == to_bytes(clip).expand(-1, -1, -1, 3).numpy()).all()


def test_odd_sides_become_even_and_the_rest_is_near(tmp_path):
    steady = torch.linspace(-1, 1, 15)[:, None].expand(4, 1, 15, 13)
    (path,) = Clips(steady[None], rate=10.0).save(tmp_path, ["a"])
    frames, rate = opened(path)
    assert frames.shape == (4, 16, 14, 3) and rate == 10
    gap = frames[:, :15, :13].astype(int) - to_bytes(steady).numpy()
    assert abs(gap).max() < 12, "more than what H.264 takes"
    assert (abs(frames[:, 15].astype(int) - frames[:, 14]) < 12).all()


def test_a_film_needs_frames(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_movie(tmp_path / "none.mp4", torch.zeros(0, 8, 8, 3, dtype=torch.uint8), 8.0)


def test_join_pads_and_keeps_what_was_given():
    short, long = clips((2, 3)), clips((7,))
    short.given[1, 0] = True
    both = Clips.join([short, long])
    assert both.lengths.tolist() == [2, 3, 7] and both.frames.shape[1] == 7
    assert both.given.nonzero().tolist() == [[1, 0]]
    assert [len(clip) for clip in both] == [2, 3, 7]
    assert torch.equal(both[1], short[1])


def test_the_sheet_has_time_along_x_and_frames_what_was_given():
    dark = Clips(torch.full((2, 4, 1, 10, 10), -1.0), torch.tensor([4, 2]))
    dark.given[0, 1] = True
    sheet = np.asarray(dark.show())
    assert sheet.shape == (2 * 12 + 2, 4 * 12 + 4 + 2, 3)
    black = (sheet == 0).all(-1)
    assert black[2:12].sum() == 4 * 100 and black[14:24].sum() == 2 * 100
    assert tuple(sheet[1, 2 + 12]) == tuple(sheet[12, 2 + 12]) == (214, 96, 20)
    assert tuple(sheet[1, 2]) == (255, 255, 255), "nothing was given there"


def test_originals_stand_above_what_has_become_of_them():
    light = Clips(torch.full((2, 3, 1, 10, 10), 1.0), torch.tensor([3, 2]))
    dark = Clips(torch.full((2, 4, 1, 10, 10), -1.0), torch.tensor([4, 2]))
    sheet = np.asarray(dark.beside(light))
    assert sheet.shape[0] == 4 * 12 + 2, "a row for each"
    black = [(sheet[2 + 12 * row : 12 + 12 * row] == 0).all(-1).sum() for row in range(4)]
    assert black == [0, 400, 0, 200]


def test_long_clips_are_shown_in_part():
    sheet = Clips(torch.zeros(1, 100, 1, 8, 8)).show()
    assert sheet.width == 16 * 10 + 4 + 2


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [(torch.zeros(3, 8, 8), None), (torch.zeros(2, 4, 1, 8, 8), torch.tensor([1, 2, 3]))],
)
def test_other_shapes_are_refused(frames, lengths):
    with pytest.raises(ValueError, match=r"\(B, T"):
        Clips(frames, lengths)


def test_equal_clips_are_equal_files_whatever_lies_in_memory(tmp_path):
    """x264 left to itself made other files one time in ten."""
    clips = Clips(MovingMnist(clips=1, most=4).held_out()[0]["video"][None])
    found = set()
    for i in range(60):
        junk = [torch.rand(1000 + 37 * i, 100) for _ in range(5)]
        (path,) = clips.save(tmp_path, ["clip"])
        found.add(path.read_bytes())
        del junk
    assert len(found) == 1
