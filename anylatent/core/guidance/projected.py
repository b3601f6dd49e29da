"""Adaptive projected guidance: high scales without oversaturation (2410.02416)."""

from __future__ import annotations

import math
from copy import copy

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser
from anylatent.core.guidance.base import STACK, TINY, Guided, branches
from anylatent.core.latents import Condition, Latent, combine
from anylatent.core.registry import register


@register("guidance", "projected", parts=STACK)
class Projected(Guided):
    """x0 = x0(cond) + (scale - 1)·(d_⊥ + parallel·d_∥), d_∥ along x0(cond), d_⊥ at right angles.

    Here d = x0(cond) - x0(∅) + momentum·d', with d' the d of the call before along one solution,
    shortened to a norm of `threshold` per √dim where it is longer. The parallel part mostly
    brightens and saturates, a negative momentum leaves out what steps have in common. With
    parallel = 1, momentum = 0 and no threshold this is classifier-free guidance.

    Inner products and norms are those of a sample on its subspace, over all fields. Momentum is
    kept by `bind` for one solution, along falling times; where time rises, or for a plain call, it
    begins anew. Interval and rescaling: see `Guided`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float = 2.0,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        rescale: float = 0.0,
        parallel: float = 0.0,
        threshold: float = math.inf,
        momentum: float = -0.5,
    ) -> None:
        super().__init__(denoiser, sigma_min, sigma_max, rescale)
        if not threshold > 0 or not -1 < momentum < 1:
            raise ValueError(
                f"threshold={threshold} and momentum={momentum}: a positive threshold (inf for "
                "none) and a momentum between -1 and 1 are wanted"
            )
        self.scale, self.parallel = scale, parallel
        self.threshold, self.momentum = threshold, momentum
        self.memory: Momentum | None = None

    def fresh(self) -> Denoiser:
        renewed = super().fresh()
        if not self.momentum:
            return renewed
        twin = copy(self) if renewed is self else renewed
        assert isinstance(twin, Projected)
        twin.memory = Momentum(self.momentum)
        return twin

    def guides(self, cond: Condition | None) -> bool:
        return cond is not None and bool(cond.droppable) and self.scale != 1

    def change(self, x: Latent, t: Tensor, cond: Condition | None) -> tuple[Latent, Latent]:
        assert cond is not None
        free, bound = branches(self.inner, x, t, [cond.null(), cond])
        d = bound - free
        if self.memory is not None:
            d = self.memory(d, t, self.inside(t))
        if self.threshold < math.inf:
            most = self.threshold * self._dim(d, t).to(torch.float64).sqrt()
            d = (most / d.norm().clamp(min=TINY)).clamp(max=1) * d
        along = self.noisy(bound, t)
        share = d.dot(along) / along.dot(along).clamp(min=TINY)
        shaped = combine((1.0, d), ((self.parallel - 1) * share, along))
        return bound, (self.scale - 1) * shaped

    def _dim(self, x: Latent, t: Tensor) -> Tensor:
        """Degrees of freedom that are not known, (B,)."""
        return x.dim if t.ndim < 2 else self.noisy(x.map(torch.ones_like).project(), t).norm() ** 2


class Momentum:
    """d + momentum·(what this gave at a higher noise level), per sample, along one solution.

    Samples may have times of their own. Where one is outside the interval, or the time has risen
    since, it neither uses nor changes what others remember.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.last: tuple[Latent, Tensor] | None = None

    def __call__(self, d: Latent, t: Tensor, inside: Tensor) -> Latent:
        if self.last is None or self.last[1].shape != t.shape or self.last[0].batch != d.batch:
            self.last = d.zeros(), torch.full_like(t, math.inf)
        average, before = self.last
        falling = (t <= before).to(inside)
        moved = combine((1.0, d), (self.momentum * falling, average))
        kept = combine((inside, moved.detach()), (1 - inside, average))
        self.last = kept, torch.where(inside > 0, t, before)
        return moved
