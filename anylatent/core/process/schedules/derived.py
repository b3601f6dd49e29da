"""Schedules made of others: the ratio of sigma and alpha changed, the kind kept.

A map (alpha, sigma) → (alpha', sigma') acts at each time; dividing by the base's gauge makes the
result a point of the base's kind: variance preserving stays so, straight lines stay straight.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from anylatent.core.process.schedules.base import Schedule, Time, as_time
from anylatent.core.process.schedules.classic import RectifiedFlow, VariancePreserving
from anylatent.core.process.schedules.learned import Learned
from anylatent.core.registry import register


class Derived(nn.Module, Schedule):
    """A base schedule followed by a map of its coefficients; a module, as the base may learn."""

    def __init__(self, base: Schedule) -> None:
        super().__init__()
        self.base = base

    @abstractmethod
    def changed(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The map, up to a common factor."""

    def _map(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.changed(alpha, sigma)
        norm = self.base.gauge(a, b)
        return a / norm, b / norm

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(*self.base.coefficients(t))

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        point = self.base.coefficients(as_time(t))
        _, rates, *_ = torch.func.jvp(self._map, point, self.base.rates(t))
        return rates[0], rates[1]

    def gauge(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.base.gauge(alpha, sigma)

    @property
    def learned(self) -> Learned | None:
        return self.base.learned


@register("schedule", "shifted", parts={"base": ("schedule", "flow")})
class Shifted(Derived):
    """Any schedule with sigma/alpha multiplied by `shift`: λ falls by 2·log(shift).

    Higher resolutions need more noise to hide as much (2301.11093); on `flow` this is the time
    shift t → s·t / (1 + (s - 1)·t) (2403.03206).
    """

    def __init__(self, base: Schedule | None = None, shift: float = 3.0) -> None:
        if shift <= 0:
            raise ValueError(f"the shift must be positive, got {shift}")
        super().__init__(base or RectifiedFlow())
        self.shift = shift

    def changed(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return alpha, self.shift * sigma

    def time(self, log_snr: Time) -> Tensor:
        return self.base.time(as_time(log_snr) + 2 * math.log(self.shift))


@register("schedule", "zero_terminal_snr", parts={"base": ("schedule", "vp")})
class ZeroTerminalSNR(Derived):
    """Any schedule whose alpha is shifted and stretched so as to end at zero (2305.08891).

    alpha' = (alpha - alpha(1)) / (1 - alpha(1)) and sigma'² = 1 - alpha'², for alpha and sigma
    scaled to alpha² + sigma² = 1. Raises ValueError for a base that can't end there: alpha = 1
    throughout as in `edm`, or a learned end.
    """

    def __init__(self, base: Schedule | None = None) -> None:
        super().__init__(base or VariancePreserving())
        name = type(self.base).__name__
        if self.base.learned is not None:
            raise ValueError(f"{name} learns where it ends: leave its terminal SNR to it")
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        if not bool(self.base.gauge(zero, one) > 0):
            raise ValueError(
                f"{name} keeps alpha = 1 and can't end at zero signal: use base=vp, sub_vp, "
                "polynomial or table"
            )
        alpha, sigma = self.base.coefficients(one)
        self._last = float(alpha / (alpha**2 + sigma**2).sqrt())

    def changed(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        norm = (alpha**2 + sigma**2).sqrt()
        alpha, sigma = alpha / norm, sigma / norm
        gone = sigma**2 / (1 + alpha) / (1 - self._last)  # 1 - alpha', exact near t = 0
        left = (alpha - self._last) / (1 - self._last)
        return left, (gone * (1 + left)).sqrt()

    def time(self, log_snr: Time) -> Tensor:
        log_snr = as_time(log_snr)
        left = torch.sigmoid(log_snr).sqrt()
        gone = torch.sigmoid(-log_snr) / (1 + left) * (1 - self._last)  # 1 - alpha of the base
        alpha = self._last + left * (1 - self._last)
        base = 2 * alpha.log() - (gone * (1 + alpha)).log()
        return torch.where(left == 0, 1.0, self.base.time(base))
