"""Latents of zero mean and known variance, whatever the autoencoder's scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from anylatent.core.latents.latent import Latent
from anylatent.core.latents.posterior import Posterior
from anylatent.core.latents.spec import Field, LatentSpec


class Normaliser(nn.Module):
    """(z - shift)/scale, per field and, where the field names a channel axis, per channel.

    Fitted, a field has the deviation that its spec says, one if it says nothing.
    Centred fields get a scale only, the same for all entries, so that rotations and translations
    commute with it. An unfitted normaliser is the identity. `fits` says whether it is to be fitted;
    one with constants of its own is not.
    """

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        self.spec, self.fits = spec, True
        for name, field in spec.fields.items():
            size = self._size(field)
            self.register_buffer(f"shift_{name}", torch.zeros(size))
            self.register_buffer(f"scale_{name}", torch.ones(size))

    @classmethod
    def fixed(
        cls,
        spec: LatentSpec,
        shifts: Mapping[str, Tensor | float] | None = None,
        scales: Mapping[str, Tensor | float] | None = None,
    ) -> Self:
        """With constants by field, () or (channels,); 0 and 1 where they are not given, so that
        without any it changes nothing. Raises ValueError for a field that the spec has not, for a
        centred one with a shift, and for scales that are not positive."""
        found = cls(spec)
        found.fits = False
        for kind, given in (("shift", shifts or {}), ("scale", scales or {})):
            for name, value in given.items():
                _check_constant(spec, kind, name, value)
                buffer: Tensor = getattr(found, f"{kind}_{name}")
                buffer.copy_(torch.as_tensor(value).expand(buffer.shape))
        return found

    @staticmethod
    def _size(field: Field) -> tuple[int, ...]:
        if field.channels is None or field.centred:
            return ()
        return (int(field.shape[field.channels] or 0),)

    def encode(self, z: Latent) -> Latent:
        """The autoencoder's latents in the diffusion model's scale."""
        return self._affine(z, lambda x, shift, scale: (x - shift) / scale)

    def decode(self, z: Latent) -> Latent:
        """The inverse of `encode`."""
        return self._affine(z, lambda x, shift, scale: x * scale + shift)

    def posterior(self, posterior: Posterior) -> Posterior:
        """A posterior in the diffusion model's scale."""
        log_std = posterior.log_std
        if log_std is not None:
            parts = {
                name: x - self._shaped("scale", name, x).log() for name, x in log_std.parts.items()
            }
            log_std = Latent(parts, log_std.masks, log_std.spec)
        return Posterior(self.encode(posterior.mean), log_std)

    def _affine(self, z: Latent, function: Callable[..., Tensor]) -> Latent:
        parts = {}
        for name, x in z.parts.items():
            shift, scale = (self._shaped(kind, name, x) for kind in ("shift", "scale"))
            parts[name] = function(x, shift, scale)
        return Latent(parts, z.masks, z.spec).project()

    def _shaped(self, kind: str, name: str, x: Tensor) -> Tensor:
        value: Tensor = getattr(self, f"{kind}_{name}").to(x)
        if value.ndim == 0:
            return value
        field = self.spec.fields[name]
        shape = [1] * x.ndim
        shape[(field.channels or 0) + 1] = -1
        return value.reshape(shape)

    @torch.no_grad()
    def fit(self, posteriors: Iterable[Posterior]) -> None:
        """Sets shift and scale to the aggregate posterior's mean and deviation, in one pass.

        Raises ValueError where they are fixed.
        """
        if not self.fits:
            raise ValueError(f"the normaliser of {self.spec} has constants that no data change")
        totals = {name: torch.zeros(3, 1) for name in self.spec.fields}
        for posterior in posteriors:
            for name in totals:
                totals[name] = totals[name].double() + self._moments(posterior, name)
        for name, field in self.spec.fields.items():
            count, first, second = totals[name]
            mean = torch.zeros_like(first) if field.centred else first / count
            deviation = (second / count - mean**2).clamp(min=1e-12).sqrt() / field.std
            size = self._size(field)
            for kind, value in (("shift", mean), ("scale", deviation)):
                buffer = getattr(self, f"{kind}_{name}")
                buffer.copy_(value.reshape(size).to(buffer))

    def _moments(self, posterior: Posterior, name: str) -> Tensor:
        """Degrees of freedom, Σ z and Σ E[z²], each of shape (channels,) or (1,)."""
        field, x = self.spec.fields[name], posterior.mean.parts[name].double().cpu()
        square = x**2
        if posterior.log_std is not None:
            square = square + (2 * posterior.log_std.parts[name].double().cpu()).exp()
        valid = torch.ones(x.shape[:2], dtype=torch.bool)
        if name in posterior.mean.masks:
            valid = posterior.mean.masks[name].cpu()
        weight = valid.reshape(valid.shape + (1,) * (x.ndim - 2)).double().expand_as(x)
        if field.centred:
            count = valid.sum(1).reshape(-1, *(1,) * (x.ndim - 1))
            weight, square = weight * (count - 1) / count, torch.where(weight > 0, square, 0)
            extra = (square - x**2) * (count - 1) / count
            return torch.stack([weight.sum(), x.sum() * 0, (x**2 + extra).sum()])[:, None]
        axis = None if not self._size(field) else (field.channels or 0) + 1
        values = [weight, torch.where(weight > 0, x, 0), torch.where(weight > 0, square, 0)]
        if axis is None:
            return torch.stack([value.sum() for value in values])[:, None]
        rest = [i for i in range(x.ndim) if i != axis]
        return torch.stack([value.sum(rest) for value in values])


def _check_constant(spec: LatentSpec, kind: str, name: str, value: Tensor | float) -> None:
    if name not in spec.fields:
        raise ValueError(f"a {kind} of '{name}', but the fields are {', '.join(spec.fields)}")
    if kind == "shift" and spec.fields[name].centred:
        raise ValueError(f"'{name}' is centred: it has a scale, and no shift")
    if kind == "scale" and not bool((torch.as_tensor(value) > 0).all()):
        raise ValueError(f"the scale of '{name}' must be positive, got {value}")
