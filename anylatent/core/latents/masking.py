"""Which entries of a sample are given while a model learns to complete the others.

Each rule draws, per sample, a mask of given entries among the valid ones and leaves at least one to
be found. Entries lie along some axes of a field: the first one, for frames, tokens and points;
(1, 2) for the places of a picture (C, H, W), row by row. What is given is shown to the network as
clean as the data: where entries can have times of their own by the time 0, elsewhere by `reveal`
and a map of ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from anylatent.core.latents.entries import over
from anylatent.core.latents.latent import Latent
from anylatent.core.latents.noise import Noise
from anylatent.core.latents.spec import Field, LatentSpec
from anylatent.core.registry import group, register

FIRST = (0,)


class Masking(ABC):
    """(valid (B, N), noise) → given (B, N), both bool; None where nothing ever is given.

    `axes`, rising, are those of a field's `shape` along which its entries lie, in rows. `always`:
    something is given of every sample that has more than one, so that a model by itself knows none
    without. `gives`: whether anything ever is.
    """

    axes: tuple[int, ...] = FIRST
    always: bool = False
    gives: bool = True

    @property
    def by_entry(self) -> bool:
        """Whether whole entries along the first axis are given, which a time can tell."""
        return self.axes == FIRST

    def along(self, axes: Sequence[int]) -> None:
        """Sets the axes; raises ValueError where they do not rise."""
        self.axes = tuple(axes)
        if not self.axes or min(self.axes) < 0 or sorted(set(self.axes)) != list(self.axes):
            raise ValueError(f"axes must be some axes of a field, rising from 0, got {list(axes)}")

    @abstractmethod
    def __call__(self, valid: Tensor, noise: Noise) -> Tensor | None: ...

    def given(self, x0: Latent, noise: Noise) -> dict[str, Tensor]:
        """What is given of each field that has these axes, (B, ...), which broadcasts against it.

        Fields with the same entries share a mask. Raises ValueError where no field has any.
        """
        drawn: dict[tuple[int, ...], Tensor] = {}
        found = {}
        for name, field in x0.spec.fields.items():
            if not _lies_along(field, self.axes):
                continue
            sizes = tuple(x0[name].shape[1 + axis] for axis in self.axes)
            key = (*sizes, int(field.variable and 0 in self.axes))
            if key not in drawn:
                given = self(_valid(x0, name, self.axes), noise)
                if given is None:
                    return {}
                drawn[key] = given.reshape(_spread(x0.batch, self.axes, sizes))
            found[name] = drawn[key]
        if not found:
            raise ValueError(
                f"no field of {x0.spec} has entries along its axes {list(self.axes)}: choose "
                "masking.axes beside that of the channels, such as [1,2] for (C, H, W)"
            )
        return found


def _lies_along(field: Field, axes: tuple[int, ...]) -> bool:
    if field.centred and axes != FIRST:
        return False
    return max(axes) < len(field.shape) and field.channel_axis not in axes


def _spread(batch: int, axes: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """A shape with these sizes at these axes, and 1 between them."""
    return [batch, *(dict(zip(axes, sizes, strict=True)).get(k, 1) for k in range(max(axes) + 1))]


def _valid(x0: Latent, name: str, axes: tuple[int, ...]) -> Tensor:
    """Which entries along these axes are no padding, (B, N)."""
    shape = [x0[name].shape[1 + axis] for axis in axes]
    valid = torch.ones(x0.batch, *shape, dtype=torch.bool, device=x0.device)
    if name in x0.masks and 0 in axes:
        valid = valid & over(x0.masks[name], valid)
    return valid.flatten(1)


group("masking", Masking)


@register("masking", "none")
class Nothing(Masking):
    """Nothing is given."""

    gives = False

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor | None:
        return None


@register("masking", "prefix")
class Prefix(Masking):
    """The first k entries, k uniform on 0 … n - 1, or `entries` of them, less where that is all."""

    def __init__(self, entries: int | None = None, axes: Sequence[int] = FIRST) -> None:
        if entries is not None and entries < 1:
            raise ValueError(f"entries={entries}: at least one is given, or masking=none")
        self.entries, self.always = entries, entries is not None
        self.along(axes)

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        lengths = valid.sum(1)
        if self.entries is None:
            return _places(valid) < (_uniform(valid, noise) * lengths).floor()[:, None]
        return _places(valid) < (lengths - 1).clamp(max=self.entries)[:, None]


@register("masking", "ends")
class Ends(Masking):
    """The first and the last entry; of two the first, of one none."""

    always = True

    def __init__(self, axes: Sequence[int] = FIRST) -> None:
        self.along(axes)

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        place, count = _places(valid), valid.sum(1, keepdim=True)
        return (place == 0) & (count > 1) | (place == count - 1) & (count > 2)


@register("masking", "every")
class Every(Masking):
    """Entries 0, k, 2k, ... for k = `step`: key frames, between which others are found.

    The first entry is always one of them, as in a cascade whose first stage makes key frames.
    """

    always = True

    def __init__(self, step: int = 4, axes: Sequence[int] = FIRST) -> None:
        if step < 2:
            raise ValueError(f"step={step}: something must be left to find, from step=2 on")
        self.step = step
        self.along(axes)

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        return valid & (_places(valid) % self.step == 0) & (valid.sum(1, keepdim=True) > 1)


@register("masking", "scattered")
class Scattered(Masking):
    """Each entry with the same probability, itself uniform on [0, 1]; one at random never."""

    def __init__(self, axes: Sequence[int] = FIRST) -> None:
        self.along(axes)

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        share, free = _uniform(valid, noise), _uniform(valid, noise)
        u = noise.uniform(valid.shape[1]).to(valid.device, non_blocking=True)
        never = _places(valid) == (free * valid.sum(1)).floor()[:, None]
        return valid & (u < share[:, None]) & ~never


@register("masking", "spans")
class Spans(Masking):
    """All but 1 to `most` spans with uniform ends, as in infilling (2211.15089)."""

    def __init__(self, most: int = 4, axes: Sequence[int] = FIRST) -> None:
        if most < 1:
            raise ValueError(f"at least one span must be left to find, got most={most}")
        self.most = most
        self.along(axes)

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        count = (_uniform(valid, noise) * self.most).floor() + 1
        ends = noise.uniform(self.most, 2).to(valid.device, non_blocking=True)
        ends = (ends * valid.sum(1)[:, None, None]).floor().sort(-1).values
        place = _places(valid)[:, None]
        inside = (place >= ends[..., :1]) & (place <= ends[..., 1:])
        drawn = torch.arange(self.most, device=valid.device) < count[:, None]
        return valid & ~(inside & drawn[..., None]).any(1)


@register("masking", "mixed")
class Mixed(Masking):
    """Nothing for a share `free` of the samples; a prefix, scattered entries or spans for the rest,
    as often."""

    def __init__(self, free: float = 0.5, axes: Sequence[int] = FIRST) -> None:
        if not 0 <= free <= 1:
            raise ValueError(f"free is a share of the samples, got {free}")
        self.free = free
        self.along(axes)
        self.rules: tuple[Callable[[Tensor, Noise], Tensor], ...] = (Prefix(), Scattered(), Spans())

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        u = _uniform(valid, noise)
        rule = ((u - self.free) / max(1 - self.free, 1e-12) * len(self.rules)).floor()
        given = torch.zeros_like(valid)
        for index, draw in enumerate(self.rules):
            given = torch.where((rule == index)[:, None], draw(valid, noise), given)
        return given  # below `free` no rule has its index


def reveal(x: Latent, x0: Latent, given: Mapping[str, Tensor]) -> Latent:
    """x_t with the given entries, masks by field, as clean as those of x0.

    On a centred field the given points have their shape in x0 about the mean that they have in x_t.
    """
    parts = dict(x.parts)
    for name, mask in given.items():
        z, mask = parts[name], over(mask, parts[name])
        if x.spec.fields[name].centred:
            parts[name] = z + gap(z, x0[name].to(z.dtype), mask, centred=True)
        else:
            parts[name] = torch.where(mask, x0[name].to(z.dtype), z)
    return Latent(parts, x.masks, x.spec)


def gap(found: Tensor, known: Tensor, mask: Tensor, centred: bool) -> Tensor:
    """What takes the given entries to where they are known, 0 elsewhere; on a centred field, whose
    place is not known, as a whole to the mean that they have."""
    found = torch.where(mask, known - found, 0)
    if not centred:
        return found
    count = mask.sum(1, keepdim=True).clamp(min=1)
    return torch.where(mask, found - found.sum(1, keepdim=True) / count, 0)


def given_map(x: Latent, given: Mapping[str, Tensor]) -> Tensor | Latent:
    """What is given as a map of ones and zeros with one channel, to be laid over x.

    A tensor, (B, N, 1) or (B, 1, H, W), where all fields that have places have the same ones, as
    the atoms of molecules; else a latent with a map for each such field. Raises ValueError for
    masks that tell channels apart, or fields that share their places.
    """
    fields = {n: f for n, f in x.spec.fields.items() if f.channel_axis is None or f.shape[1:]}
    maps = {name: _map(x, name, given.get(name)) for name in fields}
    one = next(iter(maps.values()))
    if any(value.shape != one.shape for value in maps.values()):
        spec = LatentSpec({name: _one_channel(field) for name, field in fields.items()})
        return Latent(maps, {n: mask for n, mask in x.masks.items() if n in maps}, spec)
    masks = [given.get(name) for name in fields]
    if any(mask is not masks[0] and not _equal(mask, masks[0]) for mask in masks[1:]):
        raise ValueError(f"the fields {list(fields)} share their places: give the same of each")
    return one


def _equal(mask: Tensor | None, other: Tensor | None) -> bool:
    return mask is not None and other is not None and torch.equal(mask, other)


def _one_channel(field: Field) -> Field:
    shape, axis = list(field.shape), field.channel_axis
    shape = [*shape, 1] if axis is None else [*shape[:axis], 1, *shape[axis + 1 :]]
    return Field(tuple(shape), channels=None if axis is None else axis)


def _map(x: Latent, name: str, given: Tensor | None) -> Tensor:
    value, axis = x[name], x.spec.fields[name].channel_axis
    if axis is None:
        value, axis = value[..., None], value.ndim - 1
    shape = [*value.shape[: 1 + axis], 1, *value.shape[2 + axis :]]
    if given is None:
        return value.new_zeros(shape)
    mask = over(given.to(value.device), value)
    if mask.shape[1 + axis] != 1:
        raise ValueError(
            f"a mask of shape {tuple(given.shape)} gives some channels of '{name}' and not others, "
            "which no map over its places can tell"
        )
    return mask.expand(shape).to(value.dtype)


def _uniform(valid: Tensor, noise: Noise) -> Tensor:
    """One number per sample, (B,)."""
    return noise.uniform().to(valid.device, non_blocking=True)


def _places(valid: Tensor) -> Tensor:
    return torch.arange(valid.shape[1], device=valid.device)[None]
