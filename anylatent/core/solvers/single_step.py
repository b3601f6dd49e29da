"""Single-step exponential Runge-Kutta methods: a step evaluates all that it needs itself.

The flow is an integral of x0 in x/sigma, one of the noise in x/alpha (see `base`), so that with
some mean of x0 or of the noise over the way from t to i

    x_i = (sigma_i/sigma_t)·x_t + (alpha_i - alpha_t·sigma_i/sigma_t)·mean x0,
    x_i = (alpha_i/alpha_t)·x_t + (sigma_i - sigma_t·alpha_i/alpha_t)·mean noise.

A method is a tableau: where between t and s its stages lie, and the weights of the values found
there in each of these means. Noise is (x_i - alpha_i·x0_i)/sigma_i, hence each stage, and the end,
is a combination of x_t and the stages' x0, tabulated beforehand.

With noise of strength η (the SDE at η = 1, as in `multistep`) the step first goes as far as to

    sigma_s·(ρ_s/ρ_t)^{η²},   and then adds   sigma_s·√(1 - (ρ_s/ρ_t)^{2η²})·z.

A step from alpha = 0 or to sigma = 0, between which nothing lies in the log-SNR, is DDIM's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoise
from anylatent.core.latents import Coefficient, Latent, Noise, Path, combine
from anylatent.core.process import Schedule
from anylatent.core.registry import register
from anylatent.core.solvers.base import Solver, Step, counts, tabulate, weighted

Weight: TypeAlias = float | Callable[[Tensor], Tensor]
"""A number, or one that depends on h, the way from t to s in log(alpha/sigma), or -h for x0."""


@dataclass(frozen=True)
class Tableau:
    """Where the stages after the first lie, as parts of the step, and the weights of their values.

    Row i has the weights of the values 1, 2, ... in the mean up to stage i + 1, the last row those
    up to s; value 0, which is the one at t, has the rest to 1. `in_time`: parts of the time, else
    of the log-SNR.
    """

    nodes: Sequence[float]
    rows: Sequence[Sequence[Weight]]
    in_time: bool = False


class Level(NamedTuple):
    """Times, and what the schedule says of them."""

    time: Tensor
    alpha: Tensor
    sigma: Tensor
    log_snr: Tensor


def _level(schedule: Schedule, times: Tensor) -> Level:
    return Level(times, *schedule.coefficients(times), schedule.log_snr(times))


class Stage(NamedTuple):
    """When to evaluate, and the coefficients of x_t and of the x0 before that make up x there."""

    time: Coefficient
    row: Sequence[Coefficient]


class Parts(NamedTuple):
    """A step's coefficients: noise before it, noise after it and the ends of its path, stages.

    `noise`: of x_t and x0 in the noise at its start.
    """

    lift: Coefficient
    fresh: Coefficient
    up: Coefficient
    clock: tuple[Coefficient, Coefficient]
    noise: tuple[Coefficient, Coefficient]
    stages: Sequence[Stage]


class SingleStep(Solver):
    """The method of a tableau, on x0 or, with `noises`, on the noise; `eta` is that of the SDE."""

    def __init__(
        self, tableau: Tableau, order: int, *, noises: bool = False, eta: float = 0.0
    ) -> None:
        if eta < 0:
            raise ValueError(f"eta must not be negative, got {eta}")
        self.tableau, self.noises, self.eta = tableau, noises, eta
        self.order = 1 if eta else order
        self.evaluations = len(tableau.nodes) + 1

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def churned(self) -> bool:
        """Whether noise is added before each step."""
        return False

    def cost(self, steps: int) -> int:
        """The last step, to sigma = 0, has one evaluation."""
        return self.evaluations * (steps - 1) + 1

    def starts(self, schedule: Schedule, times: Tensor) -> Tensor:
        """The times from which the steps leave, raised by noise of their own where later."""
        return times[:-1]

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        begin, end = _level(schedule, self.starts(schedule, times)), _level(schedule, times[1:])
        alpha_0, sigma_0 = schedule.coefficients(times[:-1])
        lift = torch.where(begin.time == times[:-1], 1.0, begin.alpha / alpha_0)
        fresh = (begin.sigma**2 - (lift * sigma_0) ** 2).clamp(min=0).sqrt()
        up, clocks = torch.zeros_like(fresh), torch.zeros(2, *fresh.shape)
        if self.eta:
            clocks = torch.stack([begin.log_snr, end.log_snr])
            further = self.eta**2 * (end.log_snr - begin.log_snr)
            ratio = torch.exp(-0.5 * further)
            up = end.sigma * (1 - ratio**2).clamp(min=0).sqrt()
            end = Level(end.time, end.alpha, end.sigma * ratio, end.log_snr + further)
        nodes, rows = self._rows(schedule, begin, end)
        steps = tabulate(times, lift, fresh, up, *clocks, *_noise(begin), *nodes, *torch.cat(rows))
        return [
            Step(t, s.s, _parts(s.coefficients, len(nodes)))
            for t, s in zip(begin.time.unbind(0), steps, strict=True)
        ]

    def _rows(
        self, schedule: Schedule, begin: Level, end: Level
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Times of the stages, and the rows (2 + stages, N, ...) of each and of the end."""
        levels = [self._place(schedule, part, begin, end) for part in self.tableau.nodes]
        size, shape = len(levels) + 2, begin.time.shape
        basis = torch.eye(size, dtype=torch.float64).view(size, size, *[1] * len(shape))
        basis = basis.expand(size, size, *shape)  # x_t, and each stage's x0
        values, rows = [self._value(basis[0], basis[1], begin)], []
        h = 0.5 * (end.log_snr - begin.log_snr)
        for weights, level, own in zip(self.tableau.rows, levels, basis[2:], strict=False):
            rows.append(self._row(basis, values, weights, h, begin, level))
            values.append(self._value(rows[-1], own, level))
        last = self._row(basis, values, self.tableau.rows[-1], h, begin, end)
        good = torch.cat([*rows, last]).isfinite().all(0)
        for level in levels:
            good = good & level.log_snr.isfinite()
        rows = [torch.where(good, row, basis[0]) for row in rows]
        plain = self._row(basis, values[:1], (), h, begin, end)
        places = [torch.where(good, level.time, begin.time) for level in levels]
        return places, [*rows, torch.where(good, last, plain)]

    def _place(self, schedule: Schedule, part: float, begin: Level, end: Level) -> Level:
        if part == 1:
            return end
        if self.tableau.in_time:
            return _level(schedule, torch.lerp(begin.time, end.time, part))
        log_snr = torch.lerp(begin.log_snr, end.log_snr, part)
        return _level(schedule, schedule.time(log_snr))._replace(log_snr=log_snr)

    def _value(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """x0, or the noise, in terms of x_t and the stages' x0."""
        if not self.noises:
            return x0
        on_x, on_x0 = _noise(level)
        return on_x * x + on_x0 * x0

    def _row(
        self,
        basis: Tensor,
        values: Sequence[Tensor],
        weights: Sequence[Weight],
        h: Tensor,
        begin: Level,
        end: Level,
    ) -> Tensor:
        """x at `end` by the mean of the values: DDIM's, by the first of them, and the rest."""
        c_x = end.sigma / begin.sigma
        c_0 = end.alpha - begin.alpha * c_x
        row = c_x * basis[0] + c_0 * basis[1]
        gain = end.sigma - begin.sigma * (end.alpha / begin.alpha) if self.noises else c_0
        for weight, value in zip(weights, values[1:], strict=True):
            w = weight(h if self.noises else -h) if callable(weight) else weight
            row = row + gain * w * (value - values[0])
        return row

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Path | None, noise: Noise | None
    ) -> tuple[Latent, Path | None]:
        parts = step.coefficients
        if noise is not None and self.churned:
            x = combine((parts.lift, x), (parts.fresh, noise.like(x)))
        found, _ = self.advance(denoise, x, step)
        if self.eta == 0 or noise is None:
            return found, None
        path = memory or noise.path(x, self.eta**2)
        return combine((1.0, found), (parts.up, path.between(*parts.clock))), path

    def advance(self, denoise: Denoise, x: Latent, step: Step) -> tuple[Latent, Latent]:
        """The step without its noise, and x0 at its start."""
        values = [denoise(x, step.t)]
        *stages, end = step.coefficients.stages
        for stage in stages:
            values.append(
                denoise(weighted(*zip(stage.row, (x, *values), strict=False)), stage.time)
            )
        return weighted(*zip(end.row, (x, *values), strict=False)), values[0]


def _noise(level: Level) -> tuple[Tensor, Tensor]:
    return 1 / level.sigma, -level.alpha / level.sigma


def _parts(flat: Sequence[Any], nodes: int) -> Parts:
    """A row of the table by its parts; stages that count nowhere are left out."""
    lift, fresh, up, before, after, on_x, on_x0, *rest = flat
    times, rest = [*rest[:nodes], 0.0], rest[nodes:]
    rows = [rest[i * (nodes + 2) : (i + 1) * (nodes + 2)] for i in range(nodes + 1)]
    stages = [Stage(time, row) for time, row in zip(times, rows, strict=True)]
    if not any(map(counts, rows[-1][2:])):
        stages = stages[-1:]
    return Parts(lift, fresh, up, (before, after), (on_x, on_x0), stages)


# ---- methods ----------------------------------------------------------------------------------
def mean_place(h: Tensor) -> Tensor:
    """Where in a step, from 0 to 1, the mean of a straight line in log(alpha/sigma) is met."""
    found = (torch.expm1(h) - h) / (h * torch.expm1(h))
    return torch.where(h.abs() < 1e-4, 0.5 - h / 12, found)


def _on_the_way(h: Tensor) -> Tensor:
    return 2 * mean_place(2 / 3 * h)


def _at_the_end(h: Tensor) -> Tensor:
    return 1.5 * mean_place(h)


MIDPOINT = Tableau((0.5,), ((), (1.0,)))
THIRDS = Tableau((1 / 3, 2 / 3), ((), (_on_the_way,), (0.0, _at_the_end)))
TRAPEZIUM = Tableau((1.0,), ((), (0.5,)))
CLASSICAL = Tableau((0.5, 0.5, 1.0), ((), (1.0,), (0.0, 1.0), (1 / 3, 1 / 3, 1 / 6)), in_time=True)
METHODS = {1: Tableau((), ((),)), 2: MIDPOINT, 3: THIRDS}


@register("solver", "dpm_solver")
def dpm_solver(order: int = 3) -> SingleStep:
    """DPM-Solver (2206.00927): the noise in the log-SNR, by 1, 2 or 3 evaluations a step."""
    if order not in METHODS:
        raise ValueError(f"dpm_solver has orders 1, 2 and 3, got {order}")
    return SingleStep(METHODS[order], order, noises=True)


@register("solver", "dpmpp_2s")
def dpmpp_2s(eta: float = 0.0) -> SingleStep:
    """DPM-Solver++ 2S (2211.01095): x0 in the middle of the step; `eta` = 1 is its SDE."""
    return SingleStep(MIDPOINT, 2, eta=eta)
