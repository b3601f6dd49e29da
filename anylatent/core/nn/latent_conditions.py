"""Latents as conditions, such as the fields that earlier stages of a cascade have made.

They enter by their shape: a vector (D,) beside the noise level; entries (L, D), a token each; a
grid, laid over the axes of the noisy latent as channels beside its own, and resized to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, interpolate

from anylatent.core.latents import Field, Latent, Value
from anylatent.core.nn.embedding import SinusoidalFeatures
from anylatent.core.nn.layers import zero

PLACES = 32
"""Features of the place of an entry in its sequence."""


@dataclass
class ByShape:
    """Fields apart by how they enter: names and fields of vectors, entries and grids."""

    vectors: dict[str, Field] = field(default_factory=dict)
    entries: dict[str, Field] = field(default_factory=dict)
    grids: dict[str, Field] = field(default_factory=dict)

    @classmethod
    def of(cls, latents: Mapping[str, Field], axes: int, attends: bool) -> ByShape:
        """For a network that reads grids of so many axes, none where that is 0, and entries where
        it `attends`. Raises ValueError for a field that it can't read."""
        found = cls()
        for name, known in latents.items():
            if len(known.shape) == 1 and not known.variable:
                found.vectors[name] = known
            elif len(known.shape) == 2 and attends:
                found.entries[name] = known
            elif len(known.shape) == axes + 1 > 2 and not known.variable:
                found.grids[name] = known
            else:
                reads = ["vectors (D,)", *(["entries (L, D)"] if attends else [])]
                reads += [f"grids of {axes} axes beside their channels"] if axes > 1 else []
                raise ValueError(
                    f"this backbone can't read the latent '{name}' of shape {known.shape}: as "
                    f"conditions it reads {', '.join(reads)}. Choose another backbone"
                )
        return found


def tensor_of(name: str, known: Field, value: Value) -> tuple[Tensor, Tensor | None]:
    """The tensor of a latent's only field beside a `vector`, its channels last, and its mask, if it
    has one."""
    beside = [key for key in value.parts if key != "vector"] if isinstance(value, Latent) else []
    if not isinstance(value, Latent) or len(beside or value.parts) != 1:
        raise ValueError(f"the condition '{name}' must be a latent of one field, got {value}")
    ((own, x),) = ((key, value[key]) for key in beside or value.parts)
    wanted = known.shape[1:] if known.variable else known.shape
    if tuple(x.shape[x.ndim - len(wanted) :]) != wanted or x.ndim != len(known.shape) + 1:
        raise ValueError(
            f"the condition '{name}' must be of shape (B, {known.shape}), got {tuple(x.shape)}"
        )
    axis = known.channel_axis
    x = x if axis is None else x.movedim(1 + axis, -1)
    return x, value.masks.get(own)


def entries_of(name: str, known: Field | None, value: Value) -> tuple[Tensor, Tensor | None]:
    """Entries (B, L, D) and their mask: of a latent of this field, or of token states."""
    if known is not None:
        return tensor_of(name, known, value)
    if not isinstance(value, Latent):
        raise ValueError(f"the tokens '{name}' must be a Latent, see `token_condition`")
    return value["tokens"], value.masks["tokens"]


def laid_over(
    name: str, grid: Field | None, value: Value, full: Sequence[int], axis: int
) -> Tensor:
    """A map, or a grid of any sizes, in the shape `full`, whose channels are at `axis`."""
    if grid is not None:
        sizes = [size for place, size in enumerate(full) if place not in (0, axis)]
        return resized(tensor_of(name, grid, value)[0].movedim(-1, 1), sizes).movedim(1, axis)
    if isinstance(value, Latent) or list(value.shape) != list(full):
        raise ValueError(
            f"the map '{name}' must be a tensor of shape {tuple(full)}, got "
            f"{value if isinstance(value, Latent) else tuple(value.shape)}"
        )
    return value


class EntryTokens(nn.Module):
    """Entries (B, L, D) to tokens (B, L, width); where in the sequence one is has no part in it at
    initialisation, and is learned where it tells something."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, width)
        self.places = SinusoidalFeatures(PLACES, longest=1000.0, shortest=4.0)
        self.place = zero(nn.Linear(PLACES, width))

    def forward(self, x: Tensor) -> Tensor:
        places = self.places(torch.arange(x.shape[1], device=x.device, dtype=torch.float32))
        tokens: Tensor = self.linear(x) + self.place(places.to(x.dtype))
        return tokens


def channels_of(known: Field) -> int:
    """The numbers of a field at each of its places."""
    axis = known.channel_axis
    return int(known.shape[axis] or 0) if axis is not None else 1


def resized(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """(B, C, ...) with other sizes of the axes after the channels: along each, means over what
    falls together, then linear between places."""
    for axis, size in enumerate(sizes, start=2):
        if size == x.shape[axis]:
            continue
        moved = x.movedim(axis, -1)
        rows = moved.flatten(0, -2)[:, None]
        if size < x.shape[axis]:
            rows = adaptive_avg_pool1d(rows, size)
        else:
            rows = interpolate(rows, size=size, mode="linear", align_corners=False)
        x = rows.reshape(*moved.shape[:-1], size).movedim(-1, axis)
    return x
