"""The interface of a schedule, and the family whose square of sigma has a closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from anylatent.core.registry import group

if TYPE_CHECKING:
    from anylatent.core.process.schedules.learned import Learned

Time: TypeAlias = float | Tensor

LOG_SNR_LIMIT = 20.0
"""Beyond this |λ| the noise (or the data) is below float32's resolution."""


def as_time(t: Time) -> Tensor:
    """A time or log-SNR as a float64 tensor (float32 where the device lacks float64)."""
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=torch.float64)  # float32 on the way would cost its digits
    return t.float() if t.device.type == "mps" else t.double()


def angle_log_snr(angle: Tensor) -> Tensor:
    """The log-SNR at the angle atan(sigma/alpha), which may round to above π/2."""
    return 2 * (angle.cos().clamp(min=torch.finfo(angle.dtype).tiny).log() - angle.sin().log())


class Schedule(ABC):
    """The two coefficients of the forward process, and what follows from them.

    Subclasses give `coefficients`, `rates` and `time`. A learned schedule is an `nn.Module` too.
    """

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha(t), sigma(t), in the shape of t."""

    @abstractmethod
    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """d alpha / dt, d sigma / dt, in the shape of t; may be infinite at an end."""

    @abstractmethod
    def time(self, log_snr: Time) -> Tensor:
        """The inverse of `log_snr`, clipped to [0, 1]."""

    def alpha(self, t: Time) -> Tensor:
        return self.coefficients(as_time(t))[0]

    def sigma(self, t: Time) -> Tensor:
        return self.coefficients(as_time(t))[1]

    def log_snr(self, t: Time) -> Tensor:
        alpha, sigma = self.coefficients(as_time(t))
        return 2 * (alpha.log() - sigma.log())

    def log_snr_rate(self, t: Time) -> Tensor:
        """dλ/dt, negative; infinite at the ends of most schedules."""
        alpha, sigma = self.coefficients(as_time(t))
        alpha_rate, sigma_rate = self.rates(t)
        return 2 * (alpha_rate / alpha - sigma_rate / sigma)

    def gauge(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """A norm of (alpha, sigma) that is 1 all along the schedule; here the Euclidean one.

        It says how to rescale the pair when its ratio is changed, so that a shifted schedule
        stays of its kind.
        """
        return (alpha**2 + sigma**2).sqrt()

    @property
    def terminal_snr_is_zero(self) -> bool:
        return bool(self.alpha(1.0) == 0)

    @property
    def learned(self) -> Learned | None:
        """The part of it that is trained, if any."""
        return None


group("schedule", Schedule)


class VarianceCurve(Schedule):
    """alpha² + sigma² = 1, given by sigma² as a function of t and its inverse.

    Each is given from both sides, so that neither alpha² nor sigma² loses its digits near 0.
    """

    @abstractmethod
    def squares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha², sigma²."""

    @abstractmethod
    def variance_rate(self, t: Tensor) -> Tensor:
        """d sigma² / dt."""

    @abstractmethod
    def early(self, variance: Tensor) -> Tensor:
        """t of sigma² ≤ ½."""

    @abstractmethod
    def late(self, signal: Tensor) -> Tensor:
        """t of alpha² ≤ ½."""

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        signal, variance = self.squares(t)
        return signal.sqrt(), variance.sqrt()

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        alpha, sigma = self.coefficients(t)
        half = 0.5 * self.variance_rate(t)
        return -half / alpha, half / sigma

    def time(self, log_snr: Time) -> Tensor:
        log_snr = as_time(log_snr)
        early = self.early(torch.sigmoid(-log_snr.clamp(min=0)))
        late = self.late(torch.sigmoid(log_snr.clamp(max=0)))
        return torch.where(log_snr > 0, early, late).clamp(0, 1)
