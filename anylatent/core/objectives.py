"""Training objectives: one number per sample to be minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from anylatent.core.condition import Condition
from anylatent.core.denoiser import Preconditioned
from anylatent.core.latent import Latent, combine
from anylatent.core.noise import Noise
from anylatent.core.registry import register
from anylatent.core.times import LogitNormal, Times
from anylatent.core.weightings import Simple, Weighting


class Objective(ABC):
    """(denoiser, x0, cond, noise) → loss per sample, shape (B,)."""

    @abstractmethod
    def __call__(
        self, denoiser: Preconditioned, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor: ...


@register("objective", "denoising")
class Denoising(Objective):
    """E_t w(t)·‖F(x_t, t) - target‖² per degree of freedom: score matching and flow matching alike.

    Flow matching is this with schedule `flow` and prediction `velocity`.
    """

    def __init__(self, times: Times | None = None, weighting: Weighting | None = None) -> None:
        self.times = times or LogitNormal()
        self.weighting = weighting or Simple()

    def __call__(
        self, denoiser: Preconditioned, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor:
        schedule = denoiser.schedule
        t = self.times.sample(noise, schedule).to(x0.device)
        alpha, sigma = schedule.coefficients(t)
        a, b = denoiser.prediction.target(schedule, t)
        draw = noise.like(x0)
        output = denoiser.predict(combine((alpha, x0), (sigma, draw)), t, cond)
        error = output.mse(combine((a, x0), (b, draw)))
        return self.weighting(denoiser, t, self.times).to(error) * error
