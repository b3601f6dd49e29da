"""Coarse clips and the frames that are missing in them: key frames, those between, all of them.

A clip of n frames with m frames in each gap of it is one of (m + 1)·(n - 1) + 1 frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent

COARSE, SPACING = "coarse", "spacing"


def interleaved(parts: Sequence[Tensor]) -> Tensor:
    """One clip (B, T, ...) of a clip (B, n, ...) and, one after the other, what is in its gaps, (B,
    m·(n - 1), ...)."""
    clip, *others = parts
    for inside in others:
        gaps = clip.shape[1] - 1
        each = torch.unflatten(inside, 1, (gaps, -1))
        whole = torch.cat((clip[:, :-1, None], each), 2).flatten(1, 2)
        clip = torch.cat((whole, clip[:, -1:]), 1)
    return clip


def apart(clip: Tensor, levels: int, every: int = 4) -> list[Tensor]:
    """Undoes `interleaved`, where each of so many levels puts every - 1 frames into each gap."""
    found = list[Tensor]()
    for _ in range(levels):
        rows = torch.unflatten(clip[:, :-1], 1, (-1, every))
        found.insert(0, rows[:, :, 1:].flatten(1, 2))
        clip = torch.cat((rows[:, :, 0], clip[:, -1:]), 1)
    return [clip, *found]


@dataclass(frozen=True)
class Coarser:
    """What a model of frames is told of a clip that was made before: latents, by name and in their
    order, of which `frames` frames of shape `shape` become; and how many of its own frames, `each`,
    lie in a gap of it, 0 where they are the same ones, larger."""

    names: tuple[str, ...]
    frames: int
    shape: tuple[int, ...]
    each: int

    @classmethod
    def of(cls, count: int | None, told: Mapping[str, Field]) -> Coarser | None:
        """For so many frames, None for any number of them. Raises ValueError where the numbers do
        not fit."""
        clips = {name: field for name, field in told.items() if is_clip(field)}
        if not clips:
            return None
        sizes = [int(field.shape[0] or 0) for field in clips.values()]
        frames = sizes[0]
        for size in sizes[1:]:
            if frames < 2 or size % (frames - 1):
                raise ValueError(
                    f"{_told(clips)}: {size} frames don't lie in the gaps of {frames}, as many in "
                    "each"
                )
            frames += size
        shapes = {field.shape[1:] for field in clips.values()}
        each = 0 if count == frames else (count or 0) // max(1, frames - 1)
        fits = frames > 1 and count is not None and (not each or each * (frames - 1) == count)
        if len(shapes) > 1 or not fits:
            raise ValueError(
                f"{count or 'any number of'} frames given {_told(clips)}, which are {frames}: a "
                "level of a cascade has the same frames larger, or some in each of the "
                f"{frames - 1} gaps. autoencoder=pyramid makes such levels"
            )
        shape = tuple(int(n or 0) for n in shapes.pop())
        return cls(tuple(clips), frames, shape, each)

    def spec(self, conditions: ConditionSpec) -> ConditionSpec:
        """What a network of clips is told instead."""
        kept = {name: f for name, f in conditions.latents.items() if name not in self.names}
        if not self.each:
            kept[COARSE] = Field((None, *self.shape), channels=1)
            return replace(conditions, latents=kept)
        return replace(conditions, latents=kept, scalars=[*conditions.scalars, SPACING])

    def clip(self, cond: Condition | None) -> tuple[Tensor, Condition]:
        """The coarse clip (B, n, C, h, w), and the rest of the condition."""
        missing = [name for name in self.names if cond is None or name not in cond.values]
        if cond is None or missing:
            raise ValueError(f"this network is told of {', '.join(self.names)}, not of {missing}")
        parts = list[Tensor]()
        for name in self.names:
            value = cond.values[name]
            assert isinstance(value, Latent)
            parts.append(next(iter(value.parts.values())))
        return interleaved(parts), cond.without(*self.names)


def is_clip(field: Field) -> bool:
    """Whether a latent is so many frames (C, h, w)."""
    return not field.variable and len(field.shape) == 4 and field.channels == 1


def _told(clips: Mapping[str, Field]) -> str:
    return ", ".join(f"'{name}' {field.shape}" for name, field in clips.items())
