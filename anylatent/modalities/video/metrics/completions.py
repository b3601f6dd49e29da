"""How clips are gone on with, or filled in, beside the truth and beside simple guesses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from anylatent.core.modality import Data, Metric, Outputs
from anylatent.modalities.shared.perceptual import Perceptual
from anylatent.modalities.shared.restoration import decibels, mse, ssim
from anylatent.modalities.video.metrics.guesses import (
    Task,
    centre,
    last_frame,
    linear_blend,
    moved_frame,
)
from anylatent.modalities.video.metrics.references import clips_of, references_of

_SEEN = 16
_PART = 256


class CompletionFigures(Metric):
    """How far missing frames are from the true ones, by how many frames after the last given one
    they are: 1, 2, 4, 7, 11, 16, ..., as far as there are any, and `all`.

    `psnr_1` (dB, of the mean squared error over all frames so far ahead, of all clips and
    completions: a few frames that are exactly right, as black ones may be, can't rule it as they
    would a mean of decibels; 100 where all are right), `ssim_1`, `perceptual_1` (LPIPS by AlexNet,
    1801.03924, of the first completion of 16 clips; `perceptual_all` is of the same frames),
    `centre_1` (the distance of the centres of mass of brightness in pixels) and `motion_1` (the
    mean absolute difference from the frame before, over that of the truth). A constant frame beats
    sharp samples by its PSNR, hence the row of the mean of all completions; it has no motion.

    Rows: "samples", averaged over completions; "mean of samples"; "last frame", the last given one
    again; "mean frame", of the frames of `limit` training clips; "moved frame", the last given
    one moved on as its centre of mass moved between the last two given ones; and "linear blend",
    where frames after the missing ones are given. `clips` and `completions` of each are how many.
    """

    modality: ClassVar[str] = "video"
    place: ClassVar[int] = 3

    def __init__(self, data: Data, limit: int = 256) -> None:
        self.references = references_of(data, limit, 8)

    def completions(
        self,
        originals: Outputs,
        outputs: Sequence[Outputs],
        given: Tensor,
        columns: Mapping[str, Any],
    ) -> dict[str, dict[str, float]]:
        """Raises ValueError for what are no clips, or not those of the originals."""
        task = Task(clips_of(originals), given)
        made = [_frames(each, task) for each in outputs]
        if not made or not bool(task.missing.any()):
            return {}
        figures = [_errors(task, each, full=k == 0) for k, each in enumerate(made)]
        rows = {"samples": _in_decibels(_mean(figures))}
        if len(made) > 1:
            mean = torch.stack([each.clamp(-1, 1) for each in made]).mean(0)
            rows["mean of samples"] = closeness(task, mean)
        about = {"clips": float(task.missing.any(1).sum()), "completions": float(len(made))}
        rows = {name: {**about, **row} for name, row in rows.items()}
        return {**rows, **{name: closeness(task, x) for name, x in self._guesses(task).items()}}

    def _guesses(self, task: Task) -> dict[str, Tensor]:
        """The frames of simple guesses, by the name of their row."""
        found: dict[str, Tensor | None] = {
            "last frame": last_frame(task),
            "mean frame": self.references.mean_frame.expand_as(task.truth),
            "moved frame": moved_frame(task),
            "linear blend": linear_blend(task),
        }
        kept = {name: x for name, x in found.items() if x is not None}
        given = task.given[..., None, None, None]
        return {name: torch.where(given, task.truth, x) for name, x in kept.items()}


def horizons(longest: int) -> list[int]:
    """1, 2, 4, 7, 11, ...: each step is longer by one."""
    found, step = list[int](), 1
    while (last := found[-1] + step - 1 if found else 1) <= longest:
        found.append(last)
        step += 1
    return found


def closeness(task: Task, made: Tensor) -> dict[str, float]:
    """How close frames (B, T, C, H, W) are to the truth where they are missing."""
    return _in_decibels(_errors(task, made))


def _errors(task: Task, made: Tensor, full: bool = True) -> dict[str, float]:
    """The same, but for mean squared errors, which can be averaged, in the place of decibels;
    `full`: with the perceptual distance."""
    there = task.missing
    ahead, a, b = task.ahead[there], task.truth[there], made[there]
    row = _by_horizon("psnr", _in_parts(mse, a, b), ahead)
    row |= _by_horizon("ssim", _in_parts(ssim, a, b), ahead)
    if full:
        row |= _perceptual(task, made)
    centres = (centre(a) - centre(b)).norm(dim=-1)
    return row | _by_horizon("centre", centres, ahead) | _motion(task, made)


def _in_decibels(row: Mapping[str, float]) -> dict[str, float]:
    """A row of `_errors`."""
    return {
        name: float(decibels(torch.tensor(value, dtype=torch.float64)))
        if name.startswith("psnr_")
        else value
        for name, value in row.items()
    }


def _by_horizon(name: str, values: Tensor, ahead: Tensor) -> dict[str, float]:
    """The means of values (N,), with how far ahead they are, at each horizon and of all."""
    steps = horizons(int(ahead.max()))
    found = {str(h): values[ahead == h] for h in steps} | {"all": values}
    return {f"{name}_{h}": float(some.double().mean()) for h, some in found.items() if len(some)}


@torch.no_grad()
def _perceptual(task: Task, made: Tensor) -> dict[str, float]:
    """Of some clips, at the horizons alone."""
    some = task.ahead[:_SEEN]
    known = torch.isin(some, torch.tensor(horizons(int(some.max()))))
    if not bool(known.any()):
        return {}
    a, b = task.truth[:_SEEN][known], made[:_SEEN][known]
    return _by_horizon("perceptual", _in_parts(Perceptual("alex"), a, b), some[known])


def _motion(task: Task, made: Tensor) -> dict[str, float]:
    """The mean absolute difference from the frame before over the truth's, where that moves."""
    there, ahead = task.missing[:, 1:], task.ahead[:, 1:]
    true, own = (x.diff(dim=1).abs().mean((2, 3, 4)).double()[there] for x in (task.truth, made))
    if not len(true):
        return {}
    above = _by_horizon("motion", own, ahead[there])
    below = _by_horizon("motion", true, ahead[there])
    return {name: value / below[name] for name, value in above.items() if below[name] > 0}


def _in_parts(figure: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """A figure of pairs of frames (N,), a few at a time."""
    parts = zip(torch.split(a, _PART), torch.split(b, _PART), strict=True)
    return torch.cat([figure(one, other) for one, other in parts])


def _frames(outputs: Outputs, task: Task) -> Tensor:
    """Completions as frames (B, T, C, H, W)."""
    frames = clips_of(outputs).frames.detach().float().cpu()
    if frames.shape != task.truth.shape:
        got = f"{tuple(frames.shape)} of {tuple(task.truth.shape)}"
        raise ValueError(f"completions must have the shape of the originals, got {got}")
    return frames


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over the rows that have it."""
    found = {name: [row[name] for row in rows if name in row] for name in rows[0]}
    return {name: sum(values) / len(values) for name, values in found.items()}
