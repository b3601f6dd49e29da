"""Training objectives: one number per sample to be minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.condition import Condition
from anylatent.core.denoiser import Preconditioned
from anylatent.core.latent import Latent, combine
from anylatent.core.noise import Noise
from anylatent.core.registry import register
from anylatent.core.schedules import Schedule
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

    def check(self, schedule: Schedule) -> None:
        """Raises ValueError where it can't train a model on this schedule."""
        if schedule.learned is not None:
            raise ValueError(
                f"{type(self).__name__} would move a learned schedule to the easiest noise levels: "
                "use objective=denoising weighting=elbo, or another schedule"
            )


@register("objective", "denoising")
class Denoising(Objective):
    """E_t w(t)·‖F(x_t, t) - target‖² per degree of freedom: score matching and flow matching alike.

    Flow matching is this with schedule `flow` and prediction `velocity`. A learned schedule adds
    w·½·SNR(1)·‖x0‖² per degree of freedom, the divergence of x_1 from its prior, which its end is
    trained against; see `schedules.learned`.
    """

    def __init__(self, times: Times | None = None, weighting: Weighting | None = None) -> None:
        super().__init__()
        self.times = times or LogitNormal()
        self.weighting = weighting or Simple()
        if self.times.adapts and not self.weighting.measured:
            raise ValueError(
                f"{type(self.times).__name__} times follow the loss, so their density must be "
                f"divided out, which {type(self.weighting).__name__} does not: use weighting=elbo, "
                "sigmoid, monotone_edm or uniform, or times=warped"
            )

    def check(self, schedule: Schedule) -> None:
        if not self.weighting.invariant:
            super().check(schedule)

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
        loss = self.weighting.loss(denoiser, t, self.times, error)
        if self.training:
            self.times.observe(t, error.detach(), schedule, loss.detach())
        return loss if schedule.learned is None else loss + self._ending(schedule, x0, loss)

    def _ending(self, schedule: Schedule, x0: Latent, loss: Tensor) -> Tensor:
        """The prior's term, (B,), of a schedule that learns; prepares its backward pass."""
        if schedule.learned is not None:
            schedule.learned.emphasise(2 * loss.detach())
        level = schedule.log_snr(torch.ones((), dtype=torch.float64))
        weight = self.weighting.data(level, torch.ones_like(level))
        return weight.to(loss) * (x0.dot(x0) / x0.dim.clamp(min=1)).to(loss)
