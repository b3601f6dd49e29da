"""Classifier-free guidance (2207.12598), in an interval (2404.07724), rescaled (2305.08891)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anylatent.core.condition import Condition
from anylatent.core.denoiser import Denoiser
from anylatent.core.latent import Latent, cat, combine
from anylatent.core.registry import register
from anylatent.core.schedules import Time, as_time


@register("guidance", "classifier_free")
class ClassifierFree(Denoiser):
    """x0 = x0(∅) + scale·(x0(cond) - x0(∅)).

    Applied where sigma/alpha lies in [sigma_min, sigma_max]; elsewhere x0(cond). `rescale` in
    [0, 1] moves the norm of the guided x0, per sample, to that of x0(cond). `scale` 1 is none, 0
    unconditional. Without a condition it is the denoiser itself.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float = 2.0,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        rescale: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale must lie in [0, 1], got {rescale}")
        if not 0 <= sigma_min <= sigma_max:
            raise ValueError(f"need 0 <= sigma_min <= sigma_max, got {sigma_min}, {sigma_max}")
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.scale, self.rescale = scale, rescale
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        t = as_time(t)
        scales = self._scales(t)
        if cond is None or not cond.wishes or bool((scales == 1).all()):
            plain: Latent = self.denoiser(x, t, cond)
            return plain
        both = torch.cat([t, t]) if t.ndim else t
        output: Latent = self.denoiser(cat([x, x]), both, Condition.stack(cond.null(), cond))
        free, bound = output.select(slice(x.batch)), output.select(slice(x.batch, None))
        guided = combine((1 - scales, free), (scales, bound))
        if self.rescale == 0:
            return guided
        ratio = bound.norm() / guided.norm().clamp(min=torch.finfo(torch.float32).tiny)
        return combine((1 - self.rescale + self.rescale * ratio, guided))

    def _scales(self, t: Tensor) -> Tensor:
        """The scale at each time, 1 outside the interval, in the shape of t."""
        sigma = torch.exp(-0.5 * self.schedule.log_snr(t))
        inside = (sigma >= self.sigma_min) & (sigma <= self.sigma_max)
        return torch.where(inside, self.scale, 1.0)
