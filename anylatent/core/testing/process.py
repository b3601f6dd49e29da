"""Contracts of schedules, predictions and grids, against autograd and the 2×2 system."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anylatent.core.process import Grid, Prediction, Schedule
from anylatent.core.process.schedules import (
    Cosine,
    Polynomial,
    RectifiedFlow,
    SquareRoot,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)

SCHEDULES = (
    VariancePreserving,
    Cosine,
    VarianceExploding,
    RectifiedFlow,
    SubVariancePreserving,
    Polynomial,
    SquareRoot,
)
"""Of each kind at the ends: with or without signal, at a finite, infinite or vanishing rate."""


def close(got: Tensor, wanted: Tensor, what: str, tolerance: float = 1e-9) -> None:
    """Relative where values are above 1, absolute below."""
    gap = (got - wanted).abs() / wanted.abs().clamp(min=1)
    worst = float(gap.max()) if gap.numel() else 0.0
    assert worst <= tolerance, f"{what}: off by {worst:.3g}, allowed {tolerance:.3g}"


def inner_times(count: int = 401) -> Tensor:
    """Times inside (0, 1), at irrational places so as to miss the kinks of a table."""
    places = (torch.arange(1, count, dtype=torch.float64) + 0.1 * math.sqrt(2)) / (count + 1)
    return places.clamp(1e-3, 1 - 1e-3)


@torch.no_grad()
def check_schedule(schedule: Schedule) -> None:
    """Ends, monotony, `time` as the inverse, rates against autograd, shapes and precision."""
    name = type(schedule).__name__
    _check_ends(schedule, name)
    fine = torch.linspace(0, 1, 4001, dtype=torch.float64)
    log_snr = schedule.log_snr(fine)
    assert not bool(log_snr.isnan().any()), f"{name}: the log-SNR is NaN somewhere"
    assert bool((log_snr.diff() < 0).all()), f"{name}: the log-SNR does not fall strictly"
    t = inner_times()
    close(schedule.time(schedule.log_snr(t)), t, f"{name}: time(log_snr(t)) = t", 1e-8)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    close(schedule.gauge(alpha, sigma), torch.ones_like(t), f"{name}: the gauge is 1")
    rates = _rates_by_autograd(schedule, t)
    for what, got, wanted in zip(("alpha", "sigma"), schedule.rates(t), rates, strict=True):
        close(got, wanted, f"{name}: d {what}/dt against autograd", 1e-7)
    wanted = 2 * (rates[0] / alpha - rates[1] / sigma)
    close(schedule.log_snr_rate(t), wanted, f"{name}: dλ/dt against autograd", 1e-7)
    for shape in ((), (3,), (3, 2)):
        u = torch.full(shape, 0.3)
        for value in (*schedule.coefficients(u.double()), *schedule.rates(u), schedule.log_snr(u)):
            assert value.shape == shape, f"{name}: shape {tuple(value.shape)} for times {shape}"
            assert value.dtype == torch.float64, f"{name}: coefficients in {value.dtype}"


def _check_ends(schedule: Schedule, name: str) -> None:
    alpha, sigma = schedule.coefficients(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert float(sigma[0]) == 0, f"{name}: sigma(0) is {float(sigma[0])}, wanted exactly 0"
    assert float(alpha[0]) > 0, f"{name}: alpha(0) is {float(alpha[0])}"
    assert float(sigma[1]) > 0 and float(alpha[1]) >= 0, f"{name}: bad values at t = 1"
    assert float(schedule.time(math.inf)) == 0, f"{name}: time(∞) is not 0"
    assert float(schedule.time(-math.inf)) == 1, f"{name}: time(-∞) is not 1"
    times = schedule.time(torch.linspace(-60, 60, 241, dtype=torch.float64))
    inside = bool(((times >= 0) & (times <= 1)).all())
    assert inside and bool((times.diff() <= 0).all()), f"{name}: time() leaves [0, 1] or rises"


@torch.enable_grad()
def _rates_by_autograd(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    rates = []
    for index in (0, 1):
        leaf = t.clone().requires_grad_()
        value = schedule.coefficients(leaf)[index]
        if value.requires_grad:
            rates.append(torch.autograd.grad(value.sum(), leaf)[0])
        else:
            rates.append(torch.zeros_like(t))
    return rates[0], rates[1]


def check_prediction(prediction: Prediction) -> None:
    """x0 = c_skip·x_t + c_out·F for every pair (x0, noise), exactly x_t/alpha at t = 0.

    Where the inverse or the target at t = 1 is not finite, `check` must raise, and only there.
    """
    name = type(prediction).__name__
    values = torch.tensor([-2.0, 0.0, 0.7], dtype=torch.float64)
    x0, noise = values.repeat(3), values.repeat_interleave(3)
    for kind in SCHEDULES:
        schedule = kind()
        where = f"{name} on {kind.__name__}"
        for t in (0.0, 1e-4, 0.1, 0.5, 0.9, 1.0):
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            x = alpha * x0 + sigma * noise
            c_skip, c_out = prediction.inverse(schedule, t)
            if t == 0:
                close(c_skip * x, x0, f"{where}: x0 at t = 0", 1e-12)
                assert float(c_out) == 0, f"{where}: c_out is not 0 at t = 0"
                continue
            a, b = prediction.target(schedule, t)
            if not all(bool(torch.isfinite(value)) for value in (c_skip, c_out, a, b)):
                assert t == 1, f"{where}: undefined at t = {t}"
                continue
            got = c_skip * x + c_out * (a * x0 + b * noise)
            scale = 1 + float((c_skip * x).abs().max())
            close(got, x0, f"{where}: x0 from F at t = {t}", 1e-13 * scale + 1e-12)
        ends = (*prediction.inverse(schedule, 1.0), *prediction.target(schedule, 1.0))
        finite = all(bool(torch.isfinite(value)) for value in ends)
        _check_refusal(prediction, schedule, finite, where)
        pair = prediction.inverse(schedule, torch.full((3, 2), 0.3))
        assert all(c.shape == (3, 2) for c in pair), f"{where}: shapes do not follow those of t"


def _check_refusal(prediction: Prediction, schedule: Schedule, finite: bool, where: str) -> None:
    try:
        prediction.check(schedule)
    except ValueError as error:
        assert not finite, f"{where}: refused although it is finite at t = 1: {error}"
    else:
        assert finite, f"{where}: accepted although x0 is undefined at t = 1 or F infinite"


def check_grid(grid: Grid) -> None:
    """steps + 1 times from exactly 1 to exactly 0, strictly decreasing, for every schedule; and
    from any other time on, one for each sample too."""
    name = type(grid).__name__
    for kind in SCHEDULES:
        for steps in (*range(1, 11), 20, 80, 250):
            where = f"{name} with {steps} steps on {kind.__name__}"
            _check_way(grid(kind(), steps), 1.0, steps, where)
        _check_below(grid, kind(), f"{name} on {kind.__name__}")
    _check_grid_refuses(grid, name)


def _check_way(times: Tensor, start: float, steps: int, where: str) -> None:
    assert times.shape == (steps + 1,), f"{where}: shape {tuple(times.shape)}"
    assert times.dtype == torch.float64, f"{where}: {times.dtype}, wanted float64"
    assert float(times[0]) == start and float(times[-1]) == 0, f"{where}: ends {times}"
    assert bool((times.diff() < 0).all()), f"{where}: not strictly decreasing"


def _check_below(grid: Grid, schedule: Schedule, where: str) -> None:
    levels = torch.tensor([18.0, 13.0, 4.0, 0.0, -3.0], dtype=torch.float64)
    starts = torch.cat([schedule.time(levels), torch.tensor([0.999, 1.0]).double()])
    for steps in (1, 2, 5, 20):
        ways = [grid.below(schedule, float(t), steps) for t in starts]
        for t, way in zip(starts, ways, strict=True):
            _check_way(way, float(t), steps, f"{where}, {steps} steps from {float(t):.3g}")
        whole = grid(schedule, steps)
        close(ways[-1], whole, f"{where}: {steps} steps from 1 are not the whole grid", 0)
    together = grid.below(schedule, starts, steps)
    close(together, torch.stack(ways, -1), f"{where}: a start for each sample", 0)


def _check_grid_refuses(grid: Grid, name: str) -> None:
    for what, t, steps in (("0 steps", 1.0, 0), ("a start at 0", 0.0, 4), ("one above 1", 1.5, 4)):
        try:
            grid.below(SCHEDULES[0](), t, steps)
        except ValueError:
            continue
        raise AssertionError(f"{name} accepts {what}")
