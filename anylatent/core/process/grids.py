"""Where a solver stops on its way: `steps` + 1 times from exactly 1 to exactly 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from anylatent.core.process.schedules import Schedule, Time, as_time
from anylatent.core.process.times import Times, Warped
from anylatent.core.registry import group, register


class Grid(ABC):
    """(schedule, steps) → strictly decreasing times of shape (steps + 1,), float64."""

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        return self.below(schedule, 1.0, steps)

    @torch.no_grad()
    def below(self, schedule: Schedule, t: Time, steps: int) -> Tensor:
        """The way that is left from t: `steps` + 1 times from exactly t to exactly 0.

        For t of shape (B,) or (B, T), each in (0, 1], times of shape (steps + 1, B) or more: each
        sample, or entry, has a grid of its own.
        """
        if steps < 1:
            raise ValueError(f"steps={steps}: sampling needs at least 1 step")
        t = as_time(t).cpu()
        if not bool(((t > 0) & (t <= 1)).all()):
            raise ValueError(f"a solution starts at times above 0 and up to 1, got {t.tolist()}")
        if t.ndim:
            each = [self.below(schedule, start, steps) for start in t.flatten()]
            return torch.stack(each, -1).reshape(-1, *t.shape)
        inner = self.interior(schedule, steps, t)
        times = torch.cat([t[None], inner, torch.zeros(1)]).double()
        if not bool((times.diff() < 0).all()):
            raise ValueError(
                f"{type(self).__name__} with {steps} steps on {type(schedule).__name__} gives "
                f"times that do not decrease strictly: {times.tolist()}"
            )
        return times

    @abstractmethod
    def interior(self, schedule: Schedule, steps: int, start: Tensor) -> Tensor:
        """The steps - 1 times strictly between `start`, shape (), and 0, decreasing."""

    def trained_at(self, times: Times | None) -> Grid:
        """The grid for a model that was trained at other times, where it follows these."""
        return self


group("grid", Grid, offers={"times": Times | None})


@register("grid", "uniform")
class UniformGrid(Grid):
    """Equal steps of t."""

    def interior(self, schedule: Schedule, steps: int, start: Tensor) -> Tensor:
        return torch.linspace(float(start), 0, steps + 1, dtype=torch.float64)[1:-1]


@register("grid", "log_snr")
class LogSNRGrid(Grid):
    """Equal steps of the log-SNR, clipped to [low, high] (2206.00927).

    A solution that starts in the middle at more than `high` is given one unit more.
    """

    def __init__(self, low: float = -10.0, high: float = 14.0) -> None:
        if low >= high:
            raise ValueError(f"need low < high, got {low} and {high}")
        self.low, self.high = low, high

    def interior(self, schedule: Schedule, steps: int, start: Tensor) -> Tensor:
        first = max(float(schedule.log_snr(start)), self.low)
        beyond = first >= self.high and float(start) < 1
        last = first + 1 if beyond else self.high
        return schedule.time(torch.linspace(first, last, steps + 1, dtype=torch.float64)[1:-1])


@register("grid", "soft")
class SoftGrid(Grid):
    """Equal steps of the log-SNR λ in the middle, ever longer ones towards both ends.

    Uniform in g = w₁·softplus((high - low - m)/w₁), m = w₀·softplus((λ - low)/w₀): about λ between
    `low` and `high`, a multiple of exp(λ/w₀) below and of exp(-λ/w₁) above, so that it reaches pure
    noise and data themselves, and the last levels before them move outwards with the number of
    steps. `low` and `high` are those of ten steps; each time the steps are doubled, up to 40, they
    move by `low_drift` and `high_drift`, as more steps can afford more of both ends. A solution
    that starts in the middle counts the steps of a whole one as dense as it is.

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

    def _ends(self, steps: float) -> tuple[float, float]:
        """`low` and `high` for a whole solution of so many steps."""
        doublings = math.log2(min(steps, 40) / 10)
        low, high = self.low + self.low_drift * doublings, self.high + self.high_drift * doublings
        return min(low, high - 1), high  # few steps: some room in between

    def _height(self, log_snr: Tensor, low: float, high: float) -> Tensor:
        """g."""
        first = self.low_width * _softplus((log_snr - low) / self.low_width)
        return self.high_width * _softplus((high - low - first) / self.high_width)

    def interior(self, schedule: Schedule, steps: int, start: Tensor) -> Tensor:
        level, top = schedule.log_snr(start), schedule.log_snr(1.0)
        low, high = self._ends(steps)
        for _ in range(3):
            share = self._height(level, low, high) / self._height(top, low, high)
            low, high = self._ends(steps / float(share))
        g = self._height(level, low, high)
        g = g * (1 - torch.arange(1, steps, dtype=torch.float64) / steps)
        width, span = self.high_width, high - low
        middle = span - width * _inverse_softplus(g / width)
        return schedule.time(low + self.low_width * _inverse_softplus(middle / self.low_width))


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))


@register("grid", "karras")
class KarrasGrid(Grid):
    """Equal steps of (sigma/alpha)^(1/rho) from the schedule's start to sigma_min (2206.00364).

    A solution that starts in the middle at less than `sigma_min` goes to half of that.
    """

    def __init__(
        self, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 150.0
    ) -> None:
        if not (rho > 0 and 0 < sigma_min < sigma_max):
            raise ValueError(
                f"need rho > 0 and 0 < sigma_min < sigma_max, got {rho}, {sigma_min}, {sigma_max}"
            )
        self.rho, self.sigma_min, self.sigma_max = rho, sigma_min, sigma_max

    def interior(self, schedule: Schedule, steps: int, start: Tensor) -> Tensor:
        first = min(math.exp(-0.5 * float(schedule.log_snr(start))), self.sigma_max)
        beyond = first <= self.sigma_min and float(start) < 1
        last = 0.5 * first if beyond else self.sigma_min
        ends = (first ** (1 / self.rho), last ** (1 / self.rho))
        sigma = torch.linspace(*ends, steps, dtype=torch.float64)[1:] ** self.rho
        return schedule.time(-2 * sigma.log())


@register("grid", "warped")
class WarpedGrid(Grid):
    """Equal steps of the time that training was warped by: equal shares of the loss (2211.15089).

    The quantiles of `times`, the law of the model's own training times.
    """

    def __init__(self, times: Times | None = None) -> None:
        self.times = times or Warped()

    def trained_at(self, times: Times | None) -> Grid:
        return WarpedGrid(times)

    def interior(self, schedule: Schedule, steps: int, start: Tensor) -> Tensor:
        share = self._share(schedule, start)
        u = torch.linspace(share, 0, steps + 1, dtype=torch.float64)[1:-1]
        return self.times.quantile(u, schedule).cpu()

    def _share(self, schedule: Schedule, start: Tensor) -> float:
        """Of the law that lies below `start`, by bisection of its quantiles."""
        if float(start) == 1:
            return 1.0
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break  # float64 has nothing in between
            t = self.times.quantile(torch.tensor(middle, dtype=torch.float64), schedule)
            low, high = (middle, high) if float(t) < float(start) else (low, middle)
        return low


@register("grid", "shifted", parts={"base": ("grid", "uniform")})
class ShiftedGrid(Grid):
    """Any grid moved to more noise: each time to that whose log-SNR is 2·log(shift) lower.

    The shift of larger pictures, whose pixels know more of one another: on `flow` a time t moves to
    shift·t/(1 + (shift - 1)·t) (2403.03206). It is the steps that move, once, and not the process:
    a model that was trained on a plain schedule keeps it, unlike one on `schedule=shifted`.
    """

    def __init__(self, base: Grid | None = None, shift: float = 3.0) -> None:
        if shift <= 0:
            raise ValueError(f"the shift must be positive, got {shift}")
        self.base, self.shift = base or UniformGrid(), shift

    def trained_at(self, times: Times | None) -> Grid:
        return ShiftedGrid(self.base.trained_at(times), self.shift)

    def interior(self, schedule: Schedule, steps: int, start: Tensor) -> Tensor:
        move = 2 * math.log(self.shift)
        before = schedule.time(schedule.log_snr(start) + move)
        return schedule.time(schedule.log_snr(self.base.interior(schedule, steps, before)) - move)
