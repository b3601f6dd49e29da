"""Heun's method with EDM's churn, in y = x/alpha against ρ = sigma/alpha (2206.00364)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anylatent.core.process import Schedule
from anylatent.core.registry import register
from anylatent.core.solvers.single_step import TRAPEZIUM, SingleStep


@register("solver", "heun")
class Heun(SingleStep):
    """Heun's second-order method; Euler's where alpha_t = 0 or sigma_s = 0, as at the last step.

    `churn` > 0 first raises the noise level by the factor 1 + min(churn/N, √2 - 1) with fresh
    noise, where ρ lies in [churn_min, churn_max] and the schedule goes as high.
    """

    def __init__(
        self, churn: float = 0.0, churn_min: float = 0.0, churn_max: float = math.inf
    ) -> None:
        if churn < 0 or churn_min > churn_max:
            raise ValueError(
                f"need churn >= 0 and churn_min <= churn_max, got {churn}, {churn_min}, {churn_max}"
            )
        super().__init__(TRAPEZIUM, 2, noises=True)
        self.churn, self.churn_min, self.churn_max = churn, churn_min, churn_max

    @property
    def stochastic(self) -> bool:
        return self.churned

    @property
    def churned(self) -> bool:
        return self.churn > 0

    def starts(self, schedule: Schedule, times: Tensor) -> Tensor:
        """The time to which each start is raised; itself where there is no churn."""
        starts = times[:-1]
        if not self.churn:
            return starts
        rho = torch.exp(-0.5 * schedule.log_snr(starts))
        higher = rho * (1 + min(self.churn / len(starts), math.sqrt(2) - 1))
        allowed = (rho >= self.churn_min) & (rho <= self.churn_max)
        allowed &= -2 * higher.log() > schedule.log_snr(1.0)
        return torch.where(allowed, schedule.time(-2 * higher.log()), starts)
