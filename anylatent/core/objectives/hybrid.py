"""Trains a variance of the ancestral step beside the prediction (2102.09672).

The variance learns from the divergence of q(x_s | x_t, x0) from the step that is taken,

    ½·(log(variance/small) + (small + c²·(x0 - x̂0)²)/variance - 1),

c the weight of x0 in the step's mean, which this term leaves alone (x̂0 is held fast). See
`denoisers.learned_variance`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser, LearnedVariance
from anylatent.core.latents import Condition, Latent, Noise, combine
from anylatent.core.objectives.base import Objective
from anylatent.core.process import LogitNormal, Schedule, Times
from anylatent.core.registry import register
from anylatent.core.solvers import Learned


@register("objective", "hybrid")
class Hybrid(Objective):
    """‖F - target‖² per degree of freedom, and `weight` times the bound of `steps` equal steps.

    The bound's gradient reaches v alone; see the module. Reference: 2102.09672, eq. 16.
    """

    def __init__(self, times: Times | None = None, weight: float = 1e-3, steps: int = 1000) -> None:
        super().__init__()
        if weight <= 0 or steps < 1:
            raise ValueError(f"need weight > 0 and steps >= 1, got {weight} and {steps}")
        self.times, self.weight, self.steps = times or LogitNormal(), weight, steps

    def forward(
        self, denoiser: Denoiser, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor:
        if not isinstance(denoiser, LearnedVariance):
            raise ValueError("objective=hybrid needs denoiser=learned_variance")
        schedule = denoiser.schedule
        t = self.draw_times(x0, noise, schedule)
        alpha, sigma = schedule.coefficients(t)
        draw = noise.like(x0)
        x = combine((alpha, x0), (sigma, draw))
        found, between = denoiser.both(x, t, cond)
        a, b = denoiser.prediction.target(schedule, t)
        error = found.mse(combine((a, x0), (b, draw)))
        if self.training:
            self.times.observe(t, error.detach(), schedule)
        c_skip, c_out = denoiser.prediction.inverse(schedule, t)
        missed = combine((1.0, x0), (-c_skip, x), (-c_out, found.detach()))
        return error + self.weight * self.steps * self.divergence(schedule, t, missed, between)

    def divergence(self, schedule: Schedule, t: Tensor, missed: Latent, between: Latent) -> Tensor:
        """Of the step from t to t - 1/steps (no further than to t/2), in nats per degree of
        freedom, (B,); `missed` is x0 - x̂0."""
        s = torch.maximum(t - 1 / self.steps, 0.5 * t)
        (step,) = Learned().plan(schedule, torch.stack([t, s]))
        _, c_0, small, wider = step.coefficients
        log_ratio = combine((2 * wider, between))  # of the variance to the smaller one
        error = combine((c_0 / small, missed))
        nats = log_ratio.map(
            lambda r, e: 0.5 * (r + (1 + e**2) * torch.exp(-r) - 1), error
        ).project()
        ones = nats.map(torch.ones_like).project()
        return nats.dot(ones) / nats.dim.clamp(min=1)
