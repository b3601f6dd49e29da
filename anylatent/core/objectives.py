"""Training objectives: one number per sample to be minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from anylatent.core.condition import Condition
from anylatent.core.denoiser import Preconditioned
from anylatent.core.latent import Latent, combine
from anylatent.core.noise import Noise
from anylatent.core.registry import register
from anylatent.core.times import LogitNormal, Times
from anylatent.core.weightings import Simple, Weighting


class Objective(nn.Module, ABC):
    """(denoiser, x0, cond, noise) → loss per sample, shape (B,).

    `times` is the law of the noise levels that it trains at.
    """

    times: Times

    @abstractmethod
    def forward(
        self, denoiser: Any, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor: ...


@register("objective", "denoising")
class Denoising(Objective):
    """E_t w(t)·‖F(x_t, t) - target‖² per degree of freedom: score matching and flow matching alike.

    Flow matching is this with schedule `flow` and prediction `velocity`.
    """

    def __init__(self, times: Times | None = None, weighting: Weighting | None = None) -> None:
        super().__init__()
        self.times = times or LogitNormal()
        self.weighting = weighting or Simple()

    def forward(
        self, denoiser: Preconditioned, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor:
        schedule = denoiser.schedule
        t = self.times.sample(noise, schedule).to(x0.device, non_blocking=True)
        alpha, sigma = schedule.coefficients(t)
        a, b = denoiser.prediction.target(schedule, t)
        draw = noise.like(x0)
        output = denoiser.predict(combine((alpha, x0), (sigma, draw)), t, cond)
        error = output.mse(combine((a, x0), (b, draw)))
        if self.training:
            self.times.observe(t, error.detach(), schedule)
        return self.weighting(denoiser, t, self.times).to(error) * error
