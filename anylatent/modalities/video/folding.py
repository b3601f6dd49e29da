"""Clips as batches of single frames: latents, noise levels and conditions; and as pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from anylatent.core.latents import (
    Condition,
    ConditionSpec,
    Field,
    Latent,
    LatentSpec,
    Value,
    cut,
    over,
)
from anylatent.core.support.files import UserError


def frame_field(spec: LatentSpec) -> tuple[str, Field]:
    """The name of the only field (C, h, w) of pictures' latents, and that of clips' latents, (None,
    C, h, w). Raises UserError for other latents."""
    if len(spec.fields) == 1:
        ((name, field),) = spec.fields.items()
        if len(field.shape) == 3 and not field.variable and field.channels in (None, 0):
            channels = None if field.channels is None else 1
            return name, Field((None, *field.shape), channels=channels, std=field.std)
    raise UserError(f"frames need latents of one field (C, H, W), got {spec}: choose another image")


def over_frames(term: Tensor, mask: Tensor) -> Tensor:
    """The mean over a clip's frames of what each has, (B·T,) → (B,); others as they are."""
    if term.ndim != 1 or term.numel() != mask.numel():
        return term
    each = torch.where(mask, term.view(mask.shape), 0)
    return each.sum(1) / mask.sum(1)


def pieces(length: int, size: int, reach: int) -> Iterator[tuple[slice, slice]]:
    """What is seen of so many frames at a time, and what of that is kept: `size` frames, seen with
    up to `reach` before and after them."""
    for start in range(0, length, size):
        first, stop = max(0, start - reach), min(length, start + size)
        kept = slice(start - first, stop - first)
        yield slice(first, min(length, stop + reach)), kept


def frame_spec(spec: LatentSpec) -> tuple[str, LatentSpec]:
    """The name of the only field of clips, (None, C, H, W) or of T frames each, and the spec of a
    frame (C, H, W). Raises ValueError for other latents."""
    if len(spec.fields) == 1:
        ((name, field),) = spec.fields.items()
        if len(field.rest) == 3 and field.channels in ((None, 1) if field.variable else (1,)):
            return name, LatentSpec({name: _of_frame(field)})
    raise ValueError(
        f"this backbone needs latents of one field of shape (None, C, H, W), frames first, got "
        f"{spec}: leave backbone out to take the modality's own"
    )


def in_pieces(z: Latent, size: int, reach: int, decode: Callable[[Latent], Tensor]) -> Tensor:
    """What clips are decoded to, (B, T, ...), a few at a time, `size` frames of each and what these
    reach."""
    length = next(iter(z.parts.values())).shape[1]
    at_a_time, found = max(1, size // length), list[Tensor]()
    for first in range(0, z.batch, at_a_time):
        rows = torch.arange(first, min(first + at_a_time, z.batch), device=z.device)
        parts = list[Tensor]()
        for seen, kept in pieces(length, size, reach):
            places = torch.arange(seen.start, seen.stop, device=z.device)
            parts.append(decode(cut(z, rows, places.expand(len(rows), -1)))[:, kept])
        found.append(torch.cat(parts, 1))
    return torch.cat(found)


def _of_frame(field: Field) -> Field:
    channels = None if field.channels is None else field.channels - 1
    return Field(field.rest, channels=channels, std=field.std)


def per_frame(field: Field) -> bool:
    """Whether a condition's field has an entry for each frame."""
    return field.variable and len(field.shape) in (2, 4) and field.channels in (None, 1)


def frame_conditions(conditions: ConditionSpec) -> ConditionSpec:
    """What a network of frames must embed: of what has an entry for each frame, that entry.

    A latent (None, D) is no such thing, but a sequence of tokens that all frames read.
    """
    latents = {
        name: _of_frame(field) if per_frame(field) and len(field.shape) == 4 else field
        for name, field in conditions.latents.items()
    }
    vectors = {
        name: Field(field.shape[1:]) if len(field.shape) == 2 else field
        for name, field in conditions.vectors.items()
    }
    return replace(conditions, latents=latents, vectors=vectors)


class Folding:
    """Frames of clips as samples of their own: B clips of T frames are B·T samples."""

    def __init__(self, conditions: ConditionSpec) -> None:
        self.conditions = conditions

    def clips(self, x: Latent, name: str, spec: LatentSpec) -> Latent:
        """The frames of clips, zero at padding."""
        return Latent({name: self._apart(x[name], x.masks.get(name))}, {}, spec)

    def condition(
        self, cond: Condition | None, frames: int, mask: Tensor | None
    ) -> Condition | None:
        """A condition of clips as one of their frames; `mask` (B, T) as that of the clips."""
        if cond is None:
            return None
        values = {n: self._value(n, value, frames, mask) for n, value in cond.values.items()}
        keep = {name: kept.repeat_interleave(frames, 0) for name, kept in cond.keep.items()}
        return Condition(values, keep, cond.always)

    def _value(self, name: str, value: Value, frames: int, mask: Tensor | None) -> Value:
        if isinstance(value, Latent):
            return self._latent(name, value, frames)
        field = self.conditions.vectors.get(name)
        each = field is not None and len(field.shape) == 2
        if each or (name in self.conditions.maps and value.ndim == 5):
            _check(name, value.shape[1], frames)
            return self._apart(value, mask)
        return value.repeat_interleave(frames, 0)

    def _latent(self, name: str, value: Latent, frames: int) -> Latent:
        """A latent of which some fields have an entry for each frame."""
        known = self.conditions.latents.get(name)
        vector = self.conditions.vectors.get(name)
        parts, masks, fields = {}, {}, {}
        for key, x in value.parts.items():
            own = vector if key == "vector" else known
            field, mask = value.spec.fields[key], value.masks.get(key)
            if own is not None and per_frame(own) and (key == "vector" or len(own.shape) == 4):
                _check(name, x.shape[1], frames)
                parts[key], fields[key] = self._apart(x, mask), Field(tuple(x.shape[2:]))
                continue
            parts[key], fields[key] = x.repeat_interleave(frames, 0), field
            if mask is not None:
                masks[key] = mask.repeat_interleave(frames, 0)
        return Latent(parts, masks, LatentSpec(fields))

    @staticmethod
    def _apart(x: Tensor, mask: Tensor | None) -> Tensor:
        return (x if mask is None else torch.where(over(mask, x), x, 0)).flatten(0, 1)


def _check(name: str, entries: int, frames: int) -> None:
    if entries != frames:
        raise ValueError(f"the condition '{name}' has {entries} entries for {frames} frames")
