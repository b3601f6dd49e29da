"""How much each noise level counts.

A weighting multiplies the error of x0 per degree of freedom. The loss is taken in the space of
the backbone's output, ‖F - target‖² = ‖x̂0 - x0‖² / c_out², so `__call__` returns the weight times
c_out². λ is clipped to ±20, which keeps every weight finite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from anylatent.core.denoiser import Preconditioned
from anylatent.core.registry import register
from anylatent.core.times import Times, time_limits


class Weighting(ABC):
    """A weight per sample; subclasses give it for the error of x0."""

    @abstractmethod
    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        """The weight of ‖x̂0 - x0‖². `measure` is |dλ/dt| / density(t): with it as a factor, the
        expected loss is an integral over λ, whatever times are sampled."""

    def __call__(self, denoiser: Preconditioned, t: Tensor, times: Times) -> Tensor:
        """The weight of ‖F - target‖², in the shape of t."""
        schedule = denoiser.schedule
        t = t.clamp(*time_limits(schedule))
        measure = -schedule.log_snr_rate(t) / times.density(t, schedule)
        _, c_out = denoiser.prediction.inverse(schedule, t)
        return self.data(schedule.log_snr(t), measure) * c_out**2


@register("weighting", "simple")
class Simple(Weighting):
    """The plain error of the backbone's output (2006.11239)."""

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        raise TypeError("the simple weighting is defined by the prediction, not by the log-SNR")

    def __call__(self, denoiser: Preconditioned, t: Tensor, times: Times) -> Tensor:
        return torch.ones_like(t)


@register("weighting", "elbo")
class ELBO(Weighting):
    """The diffusion loss of the variational bound, in nats per dimension: ½·|dSNR| (2107.00630)."""

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        return 0.5 * log_snr.exp() * measure


@register("weighting", "sigmoid")
class Sigmoid(Weighting):
    """The bound's integrand times sigmoid(bias - λ): monotone, hence a bound too (2303.00848)."""

    def __init__(self, bias: float = 2.0) -> None:
        self.bias = bias

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        return 0.5 * torch.sigmoid(self.bias - log_snr) * log_snr.exp() * measure


@register("weighting", "edm")
class EDM(Weighting):
    """(ρ² + s²)/(ρ·s)² with ρ = sigma/alpha: unit weight of EDM's own target (2206.00364)."""

    def __init__(self, data_std: float = 1.0) -> None:
        self.data_std = data_std

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        return log_snr.exp() + 1 / self.data_std**2


@register("weighting", "min_snr")
class MinSNR(Weighting):
    """min(SNR, gamma) (2303.09556)."""

    def __init__(self, gamma: float = 5.0) -> None:
        if gamma <= 0:
            raise ValueError(f"gamma must be positive, got {gamma}")
        self.gamma = gamma

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        return log_snr.exp().clamp(max=self.gamma)
