"""Completion: samples of which some entries are given."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser, Wrapper
from anylatent.core.latents import Condition, Latent, combine, reveal
from anylatent.core.process import Time, as_time


class Completion(Wrapper):
    """x0 with the given entries in the place of the denoiser's, and the others drawn to fit them.

    The given entries of x_t then follow their own law q(x_t | x0) to the end, at which they are
    exact. `given` has a mask (B, N) for each field, True where `known` counts. On a centred field
    the given points keep their shape and are moved as a whole to where the denoiser has them, for
    their place in the sample is unknown.

    A denoiser that was trained to complete is shown the given entries as they are. Any other is
    guided: replacing entries (as in 2201.09865) lets the rest know them only as far as the noise
    does, so x0 moves by `scale` times Cov(x0 | x_t)·Cov_known⁻¹·(known - x0), with Cov(x0 | x_t) =
    σ²/α·∂x0/∂x_t (Tweedie) and Cov_known near σ²/(α² + σ²) (2204.03458, 2302.04304): one product
    with the Jacobian a step. With `scale` 0 the entries are only replaced.
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

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        if self.inner.sees_given:
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

    def _shown(self, x: Latent, t: Time, cond: Condition) -> Latent:
        given = {name: mask.to(x.device) for name, mask in self.given.items()}
        (mask,) = given.values()
        seen = reveal(x, self.known.to(x.device), given)
        found: Latent = self.inner(seen, t, cond.fixed(given=mask[..., None].to(x.dtype)))
        return found

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
        parts = {name: self._gap(name, z, known[name]) for name, z in found.parts.items()}
        return Latent(parts, found.masks, found.spec)

    def _gap(self, name: str, found: Tensor, known: Tensor) -> Tensor:
        given = self.given[name].to(found.device)
        given = given.reshape(given.shape + (1,) * (found.ndim - 2))
        gap = torch.where(given, known - found, 0)
        if not self.known.spec.fields[name].centred:
            return gap
        count = given.sum(1, keepdim=True).clamp(min=1)
        return torch.where(given, gap - gap.sum(1, keepdim=True) / count, 0)


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
