"""What a backbone predicts: F = a·x0 + b·noise, and the one 2×2 system that gives x0 back.

With x_t = alpha·x0 + sigma·noise,

    x0 = c_skip·x_t + c_out·F,   c_skip = b/det, c_out = -sigma/det, det = alpha·b - sigma·a,

for every kind of prediction. Where sigma = 0, x0 = x_t/alpha whatever the kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from anylatent.core.registry import register
from anylatent.core.schedules import Schedule, Time, as_time


class Prediction(ABC):
    """A linear target; subclasses give its two coefficients."""

    @abstractmethod
    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        """a, b of F = a·x0 + b·noise, in the shape of t."""

    def inverse(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        """c_skip, c_out of x0 = c_skip·x_t + c_out·F, in the shape of t."""
        alpha, sigma = schedule.coefficients(as_time(t))
        a, b = self.target(schedule, t)
        det = alpha * b - sigma * a
        clean = sigma == 0
        c_skip = torch.where(clean, 1 / alpha, b / det)
        return c_skip, torch.where(clean, 0.0, -sigma / det)

    def check(self, schedule: Schedule) -> None:
        """Raises where the prediction does not determine x0 from pure noise, at t = 1."""
        if not all(bool(torch.isfinite(c)) for c in self.inverse(schedule, 1.0)):
            raise ValueError(
                f"{type(self).__name__} on {type(schedule).__name__} has no meaning at t = 1: the "
                "schedule ends at zero signal-to-noise ratio, where this target says nothing of "
                "the data. Use prediction=v, data, edm or velocity, or a schedule such as vp, edm "
                "or table, whose terminal SNR is not zero"
            )


@register("prediction", "data")
class DataPrediction(Prediction):
    """F = x0."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        return torch.ones_like(t), torch.zeros_like(t)


@register("prediction", "noise")
class NoisePrediction(Prediction):
    """F = noise (2006.11239). Undefined at zero terminal SNR."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        return torch.zeros_like(t), torch.ones_like(t)


@register("prediction", "v")
class VPrediction(Prediction):
    """F = alpha·noise - sigma·x0 (2202.00512)."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.coefficients(as_time(t))
        return -sigma, alpha


@register("prediction", "score")
class ScorePrediction(Prediction):
    """F = -noise/sigma, the score of the perturbed data (2011.13456). Undefined at zero SNR."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        sigma = schedule.sigma(t)
        return torch.zeros_like(sigma), -1 / sigma


@register("prediction", "velocity")
class VelocityPrediction(Prediction):
    """F = dx_t/dt at fixed x0 and noise; noise - x0 on `flow` (2210.02747)."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        return schedule.rates(t)


@register("prediction", "edm")
class EDMPrediction(Prediction):
    """EDM's preconditioning for data of deviation `data_std`, on any schedule (2206.00364).

    c_skip = alpha·s²/v and c_out = sigma·s/√v with v = alpha²·s² + sigma², so that the target has
    unit variance at every t and errors of F are amplified least.
    """

    def __init__(self, data_std: float = 1.0) -> None:
        if data_std <= 0:
            raise ValueError(f"data_std must be positive, got {data_std}")
        self.data_std = data_std

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.coefficients(as_time(t))
        root = (alpha**2 * self.data_std**2 + sigma**2).sqrt()
        return sigma / (self.data_std * root), -alpha * self.data_std / root
