"""Completion: samples of which some entries are given."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from anylatent.core.condition import Condition
from anylatent.core.denoiser import Denoiser
from anylatent.core.latent import Latent
from anylatent.core.schedules import Time


class Completion(Denoiser):
    """x0 with the given entries in the place of the denoiser's.

    The given entries of x_t then follow their own law q(x_t | x0) to the end, at which they are
    exact, and the denoiser completes them at every noise level. `given` has a mask (B, N) for each
    field, True where `known` counts. On a centred field the given points keep their shape and are
    moved as a whole to where the denoiser has them, for their place in the sample is unknown.

    Replacement as in SDEdit and RePaint (2201.09865), applied to x0; a stochastic solver lets the
    rest adapt.
    """

    def __init__(self, denoiser: Denoiser, known: Latent, given: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.known, self.given = known, dict(given)

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        found: Latent = self.denoiser(x, t, cond)
        known = self.known.to(found.device).to(found.dtype)
        parts = {name: self._complete(name, z, known[name]) for name, z in found.parts.items()}
        return Latent(parts, found.masks, found.spec).project()

    def _complete(self, name: str, found: Tensor, known: Tensor) -> Tensor:
        given = self.given[name].to(found.device)
        given = given.reshape(given.shape + (1,) * (found.ndim - 2))
        if self.known.spec.fields[name].centred:
            count = given.sum(1, keepdim=True).clamp(min=1)
            away = torch.where(given, found - known, 0).sum(1, keepdim=True) / count
            known = known + away
        return torch.where(given, known, found)


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
