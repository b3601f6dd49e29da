"""The shape of a latent space: named fields, some of variable length, some centred."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anylatent.core.latents.latent import Latent, cat
from anylatent.core.latents.masks import Masks, are_full


@dataclass(frozen=True)
class Field:
    """One named tensor of a latent.

    `shape` follows the batch axis; a leading `None` is a variable-length axis, padded and masked.
    `centred` fields have zero mean over that first axis (over the valid entries if it is padded).
    `channels` is the index within `shape` of the axis whose entries are normalised apart, if any.
    `std` is the deviation of normalised values: beside a field of 1, one of 0.1 is settled at ten
    times lower noise, hence later in sampling.
    """

    shape: tuple[int | None, ...]
    centred: bool = False
    channels: int | None = None
    std: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if not self.shape:
            raise ValueError("a Field needs at least one axis after the batch axis, got shape ()")
        if any(size is None for size in self.shape[1:]):
            raise ValueError(f"only the first axis of a Field may be None, got {self.shape}")
        if any(size is not None and size < 1 for size in self.shape):
            raise ValueError(f"the sizes of a Field must be positive, got {self.shape}")
        if self.centred and len(self.shape) < 2:
            raise ValueError(f"a centred Field needs a point axis and a channel axis: {self.shape}")
        if self.channels is not None:
            if not 0 <= self.channels < len(self.shape) or self.shape[self.channels] is None:
                raise ValueError(f"channels={self.channels} is no fixed axis of {self.shape}")
        if self.std <= 0:
            raise ValueError(f"the deviation of a Field must be positive, got {self.std}")

    @property
    def variable(self) -> bool:
        return self.shape[0] is None

    @property
    def rest(self) -> tuple[int, ...]:
        """The sizes after the first axis."""
        return tuple(size for size in self.shape[1:] if size is not None)

    @property
    def channel_axis(self) -> int | None:
        """Of the channels, within `shape`: the last one where `channels` names none; None for a
        sequence of numbers."""
        if self.channels is not None or self.shape == (None,):
            return self.channels
        return len(self.shape) - 1

    @property
    def has_entries(self) -> bool:
        """Whether its first axis holds entries that can have a time each: no channels, and no
        centred points, which times of their own would take off their subspace."""
        return not self.centred and self.channel_axis != 0


class LatentSpec:
    """The named fields of a latent space; owned by the autoencoder, hashable, comparable."""

    fields: Mapping[str, Field]

    def __init__(self, fields: Mapping[str, Field]) -> None:
        if not fields:
            raise ValueError("a LatentSpec needs at least one field")
        self.fields = dict(fields)
        self._key = tuple(self.fields.items())
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, LatentSpec) and self._key == other._key)

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{name}: {field.shape}{' centred' if field.centred else ''}"
            for name, field in self.fields.items()
        )
        return f"LatentSpec({inside})"

    @property
    def has_entries(self) -> bool:
        """Whether times of shape (B, T) fit: all fields have the same entries, none is centred."""
        same = len({field.shape[0] for field in self.fields.values()}) == 1
        return same and all(field.has_entries for field in self.fields.values())

    def together(self, latents: Sequence[Latent]) -> Latent:
        """Latents of it as one batch, whatever their padding."""
        if not latents[0].masks:
            return cat(latents)
        name = next(iter(latents[0].masks))
        longest = max(z[name].shape[1] for z in latents)
        return cat([_padded(z, name, longest) for z in latents])

    def take(self, names: Iterable[str]) -> LatentSpec:
        """The spec of some of the fields."""
        return LatentSpec({name: self.fields[name] for name in names})

    def blank(
        self,
        batch: int,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        padded: int | None = None,
    ) -> Latent:
        """The zero latent of a batch, which also carries its shape, masks, dtype and device.

        `lengths`, shape (B,), is needed where a field is variable; all variable fields share it.
        `padded` pads to more than the longest sample.
        """
        if batch < 1:
            raise ValueError(f"a batch needs at least one sample, got {batch}")
        variable = [name for name, field in self.fields.items() if field.variable]
        mask, full = None, False
        if variable:
            mask = _prefix_mask(batch, lengths, padded, variable, device)
            full = _fills(lengths, mask.shape[1])
        elif lengths is not None:
            raise ValueError(f"{self} has no variable field: leave out `lengths`")
        parts, masks = {}, {}
        for name, field in self.fields.items():
            first = field.shape[0] if mask is None or not field.variable else mask.shape[1]
            shape = (batch, int(first or 0), *field.rest)
            parts[name] = torch.zeros(shape, dtype=dtype, device=device)
            if field.variable and mask is not None:
                masks[name] = mask
        return Latent(parts, Masks(masks, full), self)

    def wrap(
        self, parts: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> Latent:
        """Checks tensors against the spec and projects them onto its subspace."""
        masks = Masks(masks or {}, masks is not None and are_full(masks))
        if list(parts) != list(self.fields):
            raise ValueError(f"got the fields {list(parts)}, {self} has {list(self.fields)}")
        for name, field in self.fields.items():
            shape, mask = parts[name].shape, masks.get(name)
            first = tuple(field.shape[:1]) if not field.variable else tuple(shape[1:2])
            if tuple(shape[1:]) != first + field.rest:
                raise ValueError(f"field '{name}' has shape {tuple(shape)}, wanted (B, {field})")
            if field.variable != (mask is not None):
                need = "needs a mask" if field.variable else "has a fixed length and takes no mask"
                raise ValueError(f"field '{name}' of {self} {need}")
            if mask is not None and (mask.dtype != torch.bool or mask.shape != shape[:2]):
                raise ValueError(
                    f"the mask of '{name}' must be bool of shape {tuple(shape[:2])}, "
                    f"got {mask.dtype} of shape {tuple(mask.shape)}"
                )
        return Latent(dict(parts), masks, self).project()


def _prefix_mask(
    batch: int,
    lengths: Tensor | Sequence[int] | None,
    padded: int | None,
    variable: list[str],
    device: torch.device | str | None,
) -> Tensor:
    if lengths is None:
        raise ValueError(f"the fields {variable} have a variable length: give `lengths`")
    sizes = torch.as_tensor(lengths, device=device)
    if sizes.shape != (batch,):
        raise ValueError(f"`lengths` must have shape ({batch},), got {tuple(sizes.shape)}")
    if int(sizes.min()) < 1:
        raise ValueError(f"every length must be at least 1, got {sizes.tolist()}")
    longest = int(sizes.max())
    if padded is not None and padded < longest:
        raise ValueError(f"padded={padded} is shorter than the longest sample, {longest}")
    return torch.arange(padded or longest, device=device) < sizes[:, None]


def _fills(lengths: Tensor | Sequence[int] | None, padded: int) -> bool:
    """Whether all lengths are that of the padding, where the host knows them."""
    if lengths is None or (isinstance(lengths, Tensor) and lengths.device.type != "cpu"):
        return False
    return int(torch.as_tensor(lengths).min()) == padded


def _padded(z: Latent, name: str, longest: int) -> Latent:
    blank = z.spec.blank(z.batch, z.lengths(name), dtype=z.dtype, device=z.device, padded=longest)
    for key, x in z.parts.items():
        blank.parts[key][:, : x.shape[1]] = x
    return blank
