"""Where a solver stops on its way: `steps` + 1 times from exactly 1 to exactly 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from anylatent.core.process.schedules import Schedule
from anylatent.core.process.times import Times, Warped
from anylatent.core.registry import group, register


class Grid(ABC):
    """(schedule, steps) → strictly decreasing times of shape (steps + 1,), float64."""

    @torch.no_grad()
    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        if steps < 1:
            raise ValueError(f"steps={steps}: sampling needs at least 1 step")
        times = torch.cat([torch.ones(1), self.interior(schedule, steps), torch.zeros(1)]).double()
        if not bool((times.diff() < 0).all()):
            raise ValueError(
                f"{type(self).__name__} with {steps} steps on {type(schedule).__name__} gives "
                f"times that do not decrease strictly: {times.tolist()}"
            )
        return times

    @abstractmethod
    def interior(self, schedule: Schedule, steps: int) -> Tensor:
        """The steps - 1 times strictly between 1 and 0, decreasing."""


group("grid", Grid, offers={"times": Times | None})


@register("grid", "uniform")
class UniformGrid(Grid):
    """Equal steps of t."""

    def interior(self, schedule: Schedule, steps: int) -> Tensor:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)[1:-1]


@register("grid", "log_snr")
class LogSNRGrid(Grid):
    """Equal steps of the log-SNR, clipped to [low, high] (2206.00927)."""

    def __init__(self, low: float = -10.0, high: float = 14.0) -> None:
        if low >= high:
            raise ValueError(f"need low < high, got {low} and {high}")
        self.low, self.high = low, high

    def interior(self, schedule: Schedule, steps: int) -> Tensor:
        start = max(float(schedule.log_snr(1.0)), self.low)
        return schedule.time(torch.linspace(start, self.high, steps + 1, dtype=torch.float64)[1:-1])


@register("grid", "soft")
class SoftGrid(Grid):
    """Equal steps of the log-SNR λ in the middle, ever longer ones towards both ends.

    Uniform in g = w₁·softplus((high - low - m)/w₁), m = w₀·softplus((λ - low)/w₀): about λ between
    `low` and `high`, a multiple of exp(λ/w₀) below and of exp(-λ/w₁) above, so that it reaches pure
    noise and data themselves, and the last levels before them move outwards with the number of
    steps. `low` and `high` are those of ten steps; each time the steps are doubled, up to 40, they
    move by `low_drift` and `high_drift`, as more steps can afford more of both ends.

    The defaults were fitted to `adams` on random Gaussians and mixtures, `low` and its width on
    trained models too, whose many dimensions decide early (benchmarks/results/solvers.md).
    """

    def __init__(
        self,
        low: float = -5.2,
        high: float = 5.0,
        low_width: float = 1.8,
        high_width: float = 2.0,
        low_drift: float = -0.5,
        high_drift: float = 1.7,
    ) -> None:
        if not (low < high and low_width > 0 and high_width > 0):
            raise ValueError(
                f"need low < high and positive widths, got {low}, {high}, {low_width}, {high_width}"
            )
        self.low, self.high = low, high
        self.low_width, self.high_width = low_width, high_width
        self.low_drift, self.high_drift = low_drift, high_drift

    def interior(self, schedule: Schedule, steps: int) -> Tensor:
        doublings = math.log2(min(steps, 40) / 10)
        low, high = self.low + self.low_drift * doublings, self.high + self.high_drift * doublings
        low, width = min(low, high - 1), self.high_width  # few steps: some room in between
        span = high - low
        first = self.low_width * _softplus((schedule.log_snr(1.0) - low) / self.low_width)
        g = width * _softplus((span - first) / width)
        g = g * (1 - torch.arange(1, steps, dtype=torch.float64) / steps)
        middle = span - width * _inverse_softplus(g / width)
        return schedule.time(low + self.low_width * _inverse_softplus(middle / self.low_width))


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))


@register("grid", "karras")
class KarrasGrid(Grid):
    """Equal steps of (sigma/alpha)^(1/rho) from the schedule's start to sigma_min (2206.00364)."""

    def __init__(
        self, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 150.0
    ) -> None:
        if not (rho > 0 and 0 < sigma_min < sigma_max):
            raise ValueError(
                f"need rho > 0 and 0 < sigma_min < sigma_max, got {rho}, {sigma_min}, {sigma_max}"
            )
        self.rho, self.sigma_min, self.sigma_max = rho, sigma_min, sigma_max

    def interior(self, schedule: Schedule, steps: int) -> Tensor:
        start = min(math.exp(-0.5 * float(schedule.log_snr(1.0))), self.sigma_max)
        ends = (start ** (1 / self.rho), self.sigma_min ** (1 / self.rho))
        sigma = torch.linspace(*ends, steps, dtype=torch.float64)[1:] ** self.rho
        return schedule.time(-2 * sigma.log())


@register("grid", "warped")
class WarpedGrid(Grid):
    """Equal steps of the time that training was warped by: equal shares of the loss (2211.15089).

    The quantiles of `times`, the law of the model's own training times.
    """

    def __init__(self, times: Times | None = None) -> None:
        self.times = times or Warped()

    def interior(self, schedule: Schedule, steps: int) -> Tensor:
        u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[1:-1]
        return self.times.quantile(u, schedule).cpu()
