"""Heun's method with EDM's churn, in y = x/alpha against ρ = sigma/alpha (2206.00364).

With h = ρ_s - ρ_t, x0 = denoise(x_t, t) and x0' = denoise(Euler's x_s, s), averaging the slopes
gives

    x_s = (sigma_s/sigma_t)·x_t - alpha_s·h/(2ρ_t)·(1 + h/ρ_s)·x0 - alpha_s·h/(2ρ_s)·x0'.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from anylatent.core.denoiser import Denoise
from anylatent.core.latent import Latent, combine
from anylatent.core.noise import Noise
from anylatent.core.registry import register
from anylatent.core.schedules import Schedule
from anylatent.core.solvers.base import Solver, Step, tabulate


@register("solver", "heun")
class Heun(Solver):
    """Heun's second-order method; Euler's where alpha_t = 0 or sigma_s = 0, as at the last step.

    `churn` > 0 first raises the noise level by the factor 1 + min(churn/N, √2 - 1) with fresh
    noise, where ρ lies in [churn_min, churn_max] and the schedule goes as high.
    """

    order = 2
    evaluations = 2

    def __init__(
        self, churn: float = 0.0, churn_min: float = 0.0, churn_max: float = math.inf
    ) -> None:
        if churn < 0 or churn_min > churn_max:
            raise ValueError(
                f"need churn >= 0 and churn_min <= churn_max, got {churn}, {churn_min}, {churn_max}"
            )
        self.churn, self.churn_min, self.churn_max = churn, churn_min, churn_max

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def _raised(self, schedule: Schedule, starts: Tensor) -> Tensor:
        """The time to which each start is raised; itself where there is no churn."""
        rho = torch.exp(-0.5 * schedule.log_snr(starts))
        higher = rho * (1 + min(self.churn / len(starts), math.sqrt(2) - 1))
        allowed = (rho >= self.churn_min) & (rho <= self.churn_max)
        allowed &= -2 * higher.log() > schedule.log_snr(1.0)
        return torch.where(allowed, schedule.time(-2 * higher.log()), starts)

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        starts = self._raised(schedule, times[:-1]) if self.churn else times[:-1]
        alpha_0, sigma_0 = schedule.coefficients(times[:-1])
        alpha_t, sigma_t = schedule.coefficients(starts)
        alpha_s, sigma_s = schedule.coefficients(times[1:])
        lift = torch.where(starts == times[:-1], 1.0, alpha_t / alpha_0)
        fresh = (sigma_t**2 - (lift * sigma_0) ** 2).clamp(min=0).sqrt()
        c_x, rho_t, rho_s = sigma_s / sigma_t, sigma_t / alpha_t, sigma_s / alpha_s
        c_euler = alpha_s - alpha_t * c_x
        h = rho_s - rho_t
        c_0, c_1 = -alpha_s * h / (2 * rho_t) * (1 + h / rho_s), -alpha_s * h / (2 * rho_s)
        second = torch.isfinite(c_0) & torch.isfinite(c_1)
        c_0, c_1 = torch.where(second, c_0, c_euler), torch.where(second, c_1, 0.0)
        steps = tabulate(times, c_x, c_euler, c_0, c_1, lift, fresh)
        return [Step(t, s.s, s.coefficients) for t, s in zip(starts.unbind(0), steps, strict=True)]

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Any, noise: Noise | None
    ) -> tuple[Latent, None]:
        c_x, c_euler, c_0, c_1, lift, fresh = step.coefficients
        if self.churn and noise is not None:
            x = combine((lift, x), (fresh, noise.like(x)))
        x0 = denoise(x, step.t)
        euler = combine((c_euler, x0), (c_x, x))
        if isinstance(c_1, float) and c_1 == 0:
            return euler, None
        return combine((c_0, x0), (c_x, x), (c_1, denoise(euler, step.s))), None
