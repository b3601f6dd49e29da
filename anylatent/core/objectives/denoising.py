"""Score matching and flow matching: the squared error of a prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from anylatent.core.denoisers import Preconditioned
from anylatent.core.latents import Condition, Latent, Noise, combine
from anylatent.core.objectives.base import Objective
from anylatent.core.objectives.weightings import Simple, Weighting
from anylatent.core.process import LogitNormal, Schedule, Times
from anylatent.core.registry import register


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
