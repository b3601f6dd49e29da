"""Missing frames of clips: how far they are from the given ones, and simple guesses of them."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.flow import warp


class Task:
    """Clips of which some frames are given: `truth` (B, T, C, H, W) float, `given` (B, T) bool.

    Clips without a given frame count for nothing. Raises ValueError for shapes that do not fit.
    """

    def __init__(self, originals: Clips, given: Tensor) -> None:
        self.truth, mask = originals.frames.detach().float().cpu(), originals.mask
        if given.shape != mask.shape:
            got = f"{tuple(given.shape)}, {tuple(self.truth.shape)}"
            raise ValueError(f"given (B, T) must fit the frames (B, T, C, H, W), got {got}")
        self.given = given.cpu() & mask
        self.missing = mask & ~self.given & self.given.any(1, keepdim=True)

    @cached_property
    def before(self) -> Tensor:
        """The last given frame up to each frame, (B, T), -1 where there is none."""
        return torch.where(self.given, self._places, -1).cummax(1).values

    @cached_property
    def after(self) -> Tensor:
        """The first given frame from each frame on, (B, T), T where there is none."""
        count = self.given.shape[1]
        return torch.where(self.given, self._places, count).flip(1).cummin(1).values.flip(1)

    @cached_property
    def second(self) -> Tensor:
        """The last given frame but one, (B, T), -1 where there is none."""
        earlier = self.before.gather(1, (self.before - 1).clamp(min=0))
        return torch.where(self.before > 0, earlier, -1)

    @cached_property
    def ahead(self) -> Tensor:
        """How many frames after the last given one a missing frame is, (B, T); 0 for others, and
        where no frame before is given."""
        return torch.where(self.missing & (self.before >= 0), self._places - self.before, 0)

    def taken(self, rows: Tensor) -> Tensor:
        """Frames of each clip by their places (B, T)."""
        return self.truth[torch.arange(len(rows))[:, None], rows]

    @property
    def _places(self) -> Tensor:
        return torch.arange(self.given.shape[1]).expand(self.given.shape)


# ---- guesses ----------------------------------------------------------------------------------
def last_frame(task: Task) -> Tensor:
    """The last given frame again, or the first one where none is given before."""
    count = task.truth.shape[1]
    return task.taken(torch.where(task.before >= 0, task.before, task.after.clamp(max=count - 1)))


def moved_frame(task: Task) -> Tensor | None:
    """The last given frame, moved on as its centre of brightness has moved since the given one
    before it, where there is one. None where there nowhere is."""
    known = task.missing & (task.second >= 0)
    if not bool(known.any()):
        return None
    centres = centre(task.truth)
    clips = torch.arange(len(known))[:, None]
    here, there = centres[clips, task.before.clamp(min=0)], centres[clips, task.second.clamp(min=0)]
    pace = (here - there) / (task.before - task.second).clamp(min=1)[..., None]
    ahead = torch.where(known, task.ahead, 0)[..., None]
    return moved(last_frame(task).flatten(0, 1), (pace * ahead).flatten(0, 1)).view_as(task.truth)


def linear_blend(task: Task) -> Tensor | None:
    """From the given frame before to that after in equal steps; where one of them is missing, the
    other. None where no missing frame has both."""
    count = task.truth.shape[1]
    both = (task.before >= 0) & (task.after < count)
    if not bool((both & task.missing).any()):
        return None
    start = last_frame(task)
    end = torch.where(
        both[..., None, None, None], task.taken(task.after.clamp(max=count - 1)), start
    )
    share = task.ahead / (task.after - task.before).clamp(min=1)
    return torch.lerp(start, end, share[..., None, None, None])


# ---- places -----------------------------------------------------------------------------------
def centre(frames: Tensor) -> Tensor:
    """The centre of mass of brightness, from black to white, of frames (..., C, H, W): (..., 2),
    its row and column; the middle of a black frame."""
    light = ((frames.double() + 1) / 2).clamp(0, 1).mean(-3)
    mass = light.sum((-2, -1))
    sums = []
    for axis in (-2, -1):
        size = light.shape[axis]
        place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        along = light.sum(-1 if axis == -2 else -2) @ place
        sums.append(torch.where(mass > 0, along / mass.clamp(min=1e-12), 0) + (size - 1) / 2)
    return torch.stack(sums, -1)


def moved(frames: Tensor, by: Tensor) -> Tensor:
    """Frames (N, C, H, W) moved down and right by pixels (N, 2), bilinear; edges repeated."""
    back = -by.float().flip(-1)[:, :, None, None]
    return warp(frames, back.expand(-1, -1, *frames.shape[2:]))
