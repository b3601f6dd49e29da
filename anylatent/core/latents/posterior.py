"""What an encoder says of a sample: a Gaussian on the latent's subspace, or a point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents.latent import Latent
from anylatent.core.latents.noise import Noise


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(z | data): a Gaussian with independent entries; `log_std` is None for a point mass.

    On a centred field the deviations of one sample must be equal over its points, else the
    projected Gaussian has no such form.
    """

    mean: Latent
    log_std: Latent | None = None

    def sample(self, noise: Noise) -> Latent:
        if self.log_std is None:
            return self.mean
        scaled = noise.like(self.mean).map(lambda z, log_std: z * log_std.exp(), self.log_std)
        return (self.mean + scaled).project()

    def kl(self) -> Tensor:
        """KL divergence from the standard normal on the same subspace, in nats, shape (B,)."""
        if self.log_std is None:
            raise ValueError("a point mass has no KL divergence from a Gaussian")
        excess = self.log_std.map(lambda log_std: 0.5 * torch.expm1(2 * log_std) - log_std)
        return 0.5 * self.mean.dot(self.mean) + _per_freedom(excess)

    def entropy(self, extra: float = 0.0) -> Tensor:
        """Of the posterior with Gaussian noise of deviation `extra` added, in nats, shape (B,)."""
        constant = 0.5 * math.log(2 * math.pi * math.e)
        if self.log_std is None:
            if extra <= 0:
                raise ValueError("a point mass has no entropy without noise: give extra > 0")
            return self.mean.dim.double() * (constant + math.log(extra))
        wide = self.log_std.to(torch.float64)
        return _per_freedom(
            wide.map(lambda log_std: constant + 0.5 * torch.log((2 * log_std).exp() + extra**2))
        )

    def select(self, index: Any) -> Posterior:
        log_std = None if self.log_std is None else self.log_std.select(index)
        return Posterior(self.mean.select(index), log_std)

    def to(self, *args: Any, **kwargs: Any) -> Posterior:
        log_std = None if self.log_std is None else self.log_std.to(*args, **kwargs)
        return Posterior(self.mean.to(*args, **kwargs), log_std)

    def pin_memory(self) -> Posterior:
        log_std = None if self.log_std is None else self.log_std.pin_memory()
        return Posterior(self.mean.pin_memory(), log_std)

    def detach(self) -> Posterior:
        return Posterior(
            self.mean.detach(), None if self.log_std is None else self.log_std.detach()
        )


def _per_freedom(values: Latent) -> Tensor:
    """The sum of what each entry has over the degrees of freedom of a sample, shape (B,).

    The entries of a centred field's channel are equal over its points, one of which is not free.
    """
    total = torch.zeros(values.batch, device=values.device)
    for name, x in values.parts.items():
        mask = values.masks.get(name)
        if mask is not None:
            x = torch.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, 0)
        term = (x if x.dtype == torch.float64 else x.float()).flatten(1).sum(1)
        if values.spec.fields[name].centred:
            count = values.lengths(name)
            term = term * (count - 1) / count
        total = total + term
    return total
