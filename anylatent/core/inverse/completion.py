"""Completion: samples of which some entries are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser, Wrapper
from anylatent.core.latents import (
    Condition,
    Latent,
    combine,
    gap,
    given_map,
    over,
    reveal,
)
from anylatent.core.process import Time, as_time


class Completion(Wrapper):
    """x0 with the given entries in the place of the denoiser's, and the others drawn to fit them.

    The given entries of x_t then follow their own law q(x_t | x0) to the end, at which they are
    exact. `given` has a mask for each field, True where `known` counts, over any leading axes:
    (B, N) for entries, (B, 1, H, W) for places of (C, H, W). On a centred field the given points,
    (B, N), keep their shape and are moved as a whole to where the denoiser has them, for their
    place in the sample is unknown.

    A denoiser that was trained to complete is shown the given entries as they are: at the time 0
    if it knows times for each entry (and `given` says the same entries of every field), else with
    a map of them. Any other is guided: replacing entries (as in 2201.09865) lets the rest know them
    only as far as the noise does, so x0 moves by `scale` times Cov(x0 | x_t)·Cov_known⁻¹·(known -
    x0), with Cov(x0 | x_t) = σ²/α·∂x0/∂x_t (Tweedie) and Cov_known near σ²/(α² + σ²) (2204.03458,
    2302.04304): one product with the Jacobian a step. With `scale` 0 the entries are only replaced.
    Raises ValueError for masks that do not fit their fields.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        known: Latent,
        given: Mapping[str, Tensor],
        scale: float = 1.0,
    ) -> None:
        super().__init__(denoiser)
        self.known, self.given, self.scale = known, dict(given), scale
        for name, z in known.parts.items():
            _check_fit(name, self.given[name], z, known.spec.fields[name].centred)
        self.entries = _entries(known, self.given) if denoiser.entry_times else None

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        if self.entries is not None:
            found = self._timed(x, as_time(t), self.entries.to(x.device), cond)
        elif self.inner.sees_given:
            found = self._shown(x, t, cond or Condition())
        elif self.scale:
            found = self._guided(x, as_time(t), cond)
        else:
            found = self.inner(x, t, cond)
        return (found + self._missing(found)).project()

    def select(self, index: Tensor) -> Denoiser | None:
        inner = self.inner.select(index)
        given = {name: mask[index.to(mask.device)] for name, mask in self.given.items()}
        if inner is None:
            return None
        return Completion(inner, self.known.select(index), given, self.scale)

    def _timed(self, x: Latent, t: Tensor, given: Tensor, cond: Condition | None) -> Latent:
        """Given entries as they are, and at their own time; given: (B, T)."""
        times = t.to(x.device)
        times = torch.where(given, 0.0, times if times.ndim != 1 else times[:, None])
        found: Latent = self.inner(self._clean(x), times, cond)
        return found

    def _shown(self, x: Latent, t: Time, cond: Condition) -> Latent:
        told = cond.fixed(given=given_map(x, self.given))
        found: Latent = self.inner(self._clean(x), t, told)
        return found

    def _clean(self, x: Latent) -> Latent:
        """x with the given entries without noise."""
        known = combine((self.schedule.alpha(0.0), self.known.to(x.device)))
        return reveal(x, known, {name: mask.to(x.device) for name, mask in self.given.items()})

    def _guided(self, x: Latent, t: Tensor, cond: Condition | None) -> Latent:
        with torch.enable_grad():
            free = x.map(lambda value: value.detach().requires_grad_())
            found: Latent = self.inner(free, t, cond)
            if not all(x.requires_grad for x in found.parts.values()):
                return found  # it rounds, and has no slope to follow
            fit = found.dot(self._missing(found.detach())).sum()
            slopes = torch.autograd.grad(fit, list(free.parts.values()))
        pull = Latent(dict(zip(x.parts, slopes, strict=True)), x.masks, x.spec)
        alpha, sigma = self.schedule.coefficients(t)
        strength = torch.where(alpha > 0, self.scale * (alpha**2 + sigma**2) / alpha, 0.0)
        return combine((1.0, found.detach()), (strength, pull))

    def _missing(self, found: Latent) -> Latent:
        """What takes the given entries of x0 to where they are known to be, 0 elsewhere."""
        known = self.known.to(found.device).to(found.dtype)
        parts = {}
        for name, z in found.parts.items():
            given = over(self.given[name].to(z.device), z)
            parts[name] = gap(z, known[name], given, self.known.spec.fields[name].centred)
        return Latent(parts, found.masks, found.spec)


@dataclass(frozen=True, eq=False)
class Known:
    """What samples must have: latents, where they count, by masks as in `Completion`, and how
    strongly a denoiser that has not learned to complete is led to fit them."""

    latents: Latent
    given: Mapping[str, Tensor]
    strength: float = 1.0

    def around(self, denoiser: Denoiser) -> Completion:
        return Completion(denoiser, self.latents, self.given, self.strength)

    def take(self, fields: Iterable[str]) -> Known:
        """Of some of the fields."""
        names = list(fields)
        given = {name: self.given[name] for name in names}
        return replace(self, latents=self.latents.take(names), given=given)


def _check_fit(name: str, given: Tensor, z: Tensor, centred: bool) -> None:
    pairs = zip(given.shape, z.shape, strict=False)
    fits = 2 <= given.ndim <= z.ndim and given.shape[0] == z.shape[0]
    if not fits or any(size not in (1, full) for size, full in pairs):
        raise ValueError(
            f"the mask of '{name}' must have the leading axes of {tuple(z.shape)}, or 1 in the "
            f"place of some, got {tuple(given.shape)}"
        )
    if centred and any(size != 1 for size in given.shape[2:]):
        raise ValueError(f"of the points of '{name}' all coordinates are given or none: (B, N)")


def _entries(known: Latent, given: Mapping[str, Tensor]) -> Tensor | None:
    """What is given of every field alike, (B, T); None for masks that times can't tell."""
    count, masks = known.entries, list(given.values())
    if any(mask[0].numel() != count or mask.shape[1] != count for mask in masks):
        return None
    first, *others = (mask.reshape(len(mask), count) for mask in masks)
    return first if all(torch.equal(first, other) for other in others) else None


def begin_with(known: Latent, blank: Latent) -> tuple[Latent, dict[str, Tensor]]:
    """`known` as the first entries of latents of the sizes of `blank`, and where it counts.

    Raises ValueError where a field has no variable length, or a sample less room than it needs.
    """
    parts, given = {}, {}
    for name, z in blank.parts.items():
        if not blank.spec.fields[name].variable:
            raise ValueError(f"'{name}' has a fixed length: samples can't begin with known entries")
        if bool((known.lengths(name).cpu() > blank.lengths(name).cpu()).any()):
            raise ValueError(f"more entries of '{name}' are known than its samples have")
        length = min(known[name].shape[1], z.shape[1])
        parts[name], given[name] = torch.zeros_like(z), torch.zeros_like(blank.masks[name])
        parts[name][:, :length] = known[name][:, :length]
        given[name][:, :length] = known.masks[name][:, :length]
    return Latent(parts, blank.masks, blank.spec), given
