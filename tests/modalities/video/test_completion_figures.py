"""Figures of clips that go on from given frames, beside the truth and simple guesses."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.modality import Metrics
from anylatent.modalities.shared.restoration import psnr
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.metrics import CompletionFigures, completions
from anylatent.modalities.video.metrics.completions import closeness, horizons
from anylatent.modalities.video.metrics.guesses import (
    Task,
    centre,
    last_frame,
    linear_blend,
    moved,
    moved_frame,
)


class Grey(al.Data):
    """Clips of one grey each, whose mean is -.6."""

    classes = {}
    shape = (1, 40, 40)
    fingerprint = "grey"

    def train(self):
        return [{"video": torch.full((9, 1, 40, 40), level)} for level in (-0.8, -0.4)]

    held_out = train


def disc(row, column, size=40):
    """A round bright spot on black, (1, size, size)."""
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float64),) * 2, indexing="ij")
    spot = torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 8)
    return (2 * spot - 1).float()[None]


def path(length, start=(8.0, 10.0), pace=(1.5, -0.5)):
    """A spot that moves on linearly, (T, 1, 40, 40)."""
    return torch.stack(
        [disc(*(s + p * t for s, p in zip(start, pace, strict=True))) for t in range(length)]
    )


def which(length, *places):
    return torch.isin(torch.arange(length), torch.tensor(places))[None]


def task(clip, *places):
    return Task(Clips(clip[None]), which(len(clip), *places))


@pytest.fixture(autouse=True)
def still(monkeypatch, tmp_path):
    """No perceptual network but where a test asks for it, and a cache of its own."""
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path))
    monkeypatch.setattr(
        completions, "Perceptual", lambda trunk: lambda a, b: (a - b).abs().mean((1, 2, 3))
    )


# ---- what is missing --------------------------------------------------------------------------
def test_horizons_grow():
    assert horizons(11) == [1, 2, 4, 7, 11] and horizons(1) == [1] and horizons(0) == []
    assert horizons(20)[-1] == 16


def test_missing_frames_know_the_given_ones():
    clips = Clips(torch.zeros(3, 8, 1, 4, 4), torch.tensor([8, 6, 8]))
    given = torch.cat([which(8, 0, 1, 5), which(8, 2, 7), which(8)])
    found = Task(clips, given)
    assert found.missing.tolist() == [
        [False, False, True, True, True, False, True, True],
        [True, True, False, True, True, True, False, False],  # 6 frames, 7 is none of them
        [False] * 8,  # nothing is given, so that nothing can be told
    ]
    assert found.ahead.tolist() == [[0, 0, 1, 2, 3, 0, 1, 2], [0, 0, 0, 1, 2, 3, 0, 0], [0] * 8]
    assert found.before[0].tolist() == [0, 1, 1, 1, 1, 5, 5, 5]
    assert found.second[0].tolist() == [-1, 0, 0, 0, 0, 1, 1, 1]
    assert found.after[:2].tolist() == [[0, 1, 5, 5, 5, 5, 8, 8], [2, 2, 2, 8, 8, 8, 8, 8]]
    with pytest.raises(ValueError, match=r"given \(B, T\) must fit .* got \(1, 5\)"):
        Task(clips, which(5))


# ---- centres and guesses ----------------------------------------------------------------------
def test_the_centre_of_brightness():
    assert torch.allclose(centre(disc(17.0, 22.5)), torch.tensor([17.0, 22.5]).double(), atol=1e-3)
    assert centre(-torch.ones(2, 3, 3, 40, 30)).unique().tolist() == [14.5, 19.5]
    two = torch.full((1, 5, 7), -1.0)
    two[0, 1, 2], two[0, 3, 6] = 1.0, 0.0  # brightness 1 and a half
    assert torch.allclose(centre(two), torch.tensor([5 / 3, 10 / 3]).double())
    assert torch.equal(centre(two + (two > 0) * 4), centre(two)), "no brighter than white"


def test_moved_pictures():
    frames = torch.stack([disc(12.0, 20.0), disc(30.0, 9.0)])
    by = torch.tensor([[4.0, -7.0], [0.5, 0.25]])
    found = moved(frames, by)
    assert torch.allclose(found[0], disc(16.0, 13.0), atol=1e-4)
    assert torch.equal(moved(frames, torch.zeros(2, 2)), frames)
    assert torch.allclose(centre(found) - centre(frames), by.double(), atol=1e-3)


def test_guesses_of_a_spot_that_moves_on():
    """The moved frame is the truth, the last one is behind by the pace, frame by frame."""
    found = task(path(9), 0, 1, 2)
    assert torch.equal(last_frame(found)[0, 3:], found.truth[0, 2].expand(6, -1, -1, -1))
    guess = moved_frame(found)
    assert (guess - found.truth)[0, 3::2].abs().max() < 0.15, "half pixels are blurred"
    assert (guess - found.truth)[0, 4::2].abs().max() < 1e-4, "whole ones are exact"
    row = closeness(found, guess)
    assert row["centre_all"] < 0.01 and row["motion_all"] == pytest.approx(1, abs=0.1)
    late = closeness(found, last_frame(found))
    for h in (1, 2, 4):
        assert late[f"centre_{h}"] == pytest.approx(h * 2.5**0.5, abs=0.02)
    assert late["motion_all"] == 0


def test_guesses_where_frames_after_are_given():
    found = task(path(9), 0, 1, 8)
    assert moved_frame(found) is not None and moved_frame(task(path(9), 0, 8)) is None
    blend, (a, b) = linear_blend(found)[0], found.truth[0, [1, 8]]
    assert torch.allclose(blend[5], a + (b - a) * 4 / 7, atol=1e-6)
    assert linear_blend(task(path(9), 0, 1)) is None
    first = task(path(5), 2)
    assert torch.equal(last_frame(first)[0, :2], first.truth[0, 2].expand(2, -1, -1, -1))
    uneven = moved_frame(task(path(9), 0, 2))  # three pixels down in two frames
    assert torch.allclose(uneven[0, 4], path(9)[4], atol=1e-4)


# ---- tables -----------------------------------------------------------------------------------
def rows_of(clip, given, *made, data=None):
    metric = CompletionFigures(data or Grey())
    originals = Clips(clip[None])
    return metric.completions(originals, [Clips(x[None]) for x in made], given, {})


def test_rows_and_figures():
    clip = path(9)
    rows = rows_of(clip, which(9, 0, 1), clip, clip + 0)
    assert list(rows) == ["samples", "mean of samples", "last frame", "mean frame", "moved frame"]
    kinds = ("psnr", "ssim", "perceptual", "centre", "motion")
    figures = [f"{kind}_{h}" for kind in kinds for h in (1, 2, 4, 7, "all")]
    assert list(rows["samples"]) == ["clips", "completions", *figures]
    assert list(rows["last frame"]) == figures
    assert rows["samples"]["psnr_all"] == 100 and rows["samples"]["motion_4"] == 1
    assert rows["samples"]["completions"] == 2 and rows["samples"]["clips"] == 1
    assert rows["last frame"]["centre_1"] == pytest.approx(2.5**0.5, abs=0.01)
    mean = torch.full((1, 1, 40, 40), -0.6)
    assert rows["mean frame"]["psnr_1"] == pytest.approx(float(psnr(clip[2:3], mean)))
    assert "linear blend" in rows_of(clip, which(9, 0, 8), clip)
    assert "mean of samples" not in rows_of(clip, which(9, 0, 8), clip)


def test_the_mean_of_samples_is_another_row():
    """Errors of opposite sign: their mean is right, each of them is not."""
    clip = torch.zeros(5, 1, 40, 40)
    rows = rows_of(clip, which(5, 0), clip + 0.2, clip - 0.2)
    assert rows["samples"]["psnr_all"] == pytest.approx(20, abs=1e-4)
    assert rows["mean of samples"]["psnr_all"] == 100
    assert rows["mean frame"]["psnr_all"] == pytest.approx(-20 * torch.tensor(0.3).log10().item())
    bright = rows_of(clip + 0.9, which(5, 0), clip + 1.1, clip + 1.5)
    assert bright["samples"]["psnr_all"] == pytest.approx(26.0206, abs=1e-3), "clamped"


def test_frames_that_are_exactly_right_do_not_rule():
    """Of the mean squared error over frames and completions, not a mean of decibels."""
    clip = torch.zeros(4, 1, 40, 40)
    made = clip + torch.tensor([0, 0, 0.2, 0.2])[:, None, None, None]
    row = rows_of(clip, which(4, 0), made)["samples"]
    assert (row["psnr_1"], row["psnr_2"]) == (100, pytest.approx(20, abs=1e-4))
    assert row["psnr_all"] == pytest.approx(20 - 10 * math.log10(2 / 3), abs=1e-4)
    row = rows_of(clip, which(4, 0), clip + 0.2, clip)["samples"]
    assert row["psnr_1"] == row["psnr_all"] == pytest.approx(20 + 10 * math.log10(2), abs=1e-4)
    assert row["centre_1"] == 0 and row["completions"] == 2


def test_rows_of_several_metrics_are_one():
    class Same(al.Metric):
        def completions(self, originals, outputs, given, columns):
            return {"samples": {"asked": float(len(columns))}, "nothing": {"asked": 0.0}}

    clips, found = Clips(path(4)[None]), Metrics([Same(), CompletionFigures(Grey())])
    rows = found.completions(clips, [clips], which(4, 0), {"a": [1]})
    assert list(rows) == ["samples", "nothing", "last frame", "mean frame"]
    assert list(rows["samples"])[:3] == ["asked", "clips", "completions"]
    assert al.Metric().completions(clips, [clips], which(4, 0), {}) == {}


def test_what_was_given_does_not_count():
    clip, other = path(6), path(6)
    other[:2] = 0.7
    assert rows_of(clip, which(6, 0, 1), other)["samples"]["psnr_all"] == 100
    assert rows_of(clip, which(6, *range(6)), other) == {}
    assert CompletionFigures(Grey()).completions(Clips(clip[None]), [], which(6, 0), {}) == {}


def test_clips_of_other_lengths_count_their_frames():
    frames = torch.stack([path(6), path(6)])
    made = frames.clone()
    made[1, 3:] = 5.0  # after its end
    originals, lengths = Clips(frames, torch.tensor([6, 3])), torch.tensor([6, 3])
    given = which(6, 0).expand(2, -1)
    rows = CompletionFigures(Grey()).completions(originals, [Clips(made, lengths)], given, {})
    assert rows["samples"]["psnr_all"] == 100 and rows["samples"]["clips"] == 2


def test_what_is_refused():
    clip, metric = Clips(path(4)[None]), CompletionFigures(Grey())
    with pytest.raises(ValueError, match="must have the shape of the originals"):
        metric.completions(clip, [Clips(path(5)[None])], which(4, 0), {})
    with pytest.raises(ValueError, match="are of Clips, got list"):
        metric.completions([1], [clip], which(4, 0), {})


# ---- digits -----------------------------------------------------------------------------------
def test_guesses_of_bouncing_digits(bouncing):
    """A constant is nearer than the last frame, which the moved frame beats for a while."""
    data, clips, _ = bouncing
    given = which(16, *range(5)).expand(24, -1)
    rows = CompletionFigures(data).completions(
        clips, [Clips(-torch.ones_like(clips.frames))], given, {}
    )
    last, mean, shifted = (rows[name] for name in ("last frame", "mean frame", "moved frame"))
    assert last["psnr_all"] == pytest.approx(11.6, abs=0.8)
    assert mean["psnr_all"] == pytest.approx(14.3, abs=0.6)
    assert rows["samples"]["psnr_all"] == pytest.approx(13.7, abs=0.7)
    assert shifted["psnr_all"] == pytest.approx(12.5, abs=0.8)
    for h, wanted in {1: 2.4, 2: 4.7, 4: 8.8}.items():
        assert last[f"centre_{h}"] == pytest.approx(wanted, rel=0.15)
        assert shifted[f"centre_{h}"] < last[f"centre_{h}"]
    assert rows["samples"]["motion_2"] == last["motion_2"] == 0
