"""Contracts of solvers, against exact Gaussians."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anylatent.core.denoisers import GaussianDenoiser, constant
from anylatent.core.latents import Field, Latent, LatentSpec, Noise
from anylatent.core.process import Grid, Schedule, Time
from anylatent.core.process.grids import LogSNRGrid, UniformGrid
from anylatent.core.process.schedules import Cosine, RectifiedFlow, VariancePreserving
from anylatent.core.solvers import Adaptive, Solver, solve
from anylatent.core.testing.examples import (
    SPECS,
    Impulses,
    alone,
    begin,
    distance,
    in_subspace,
)
from anylatent.core.testing.process import SCHEDULES

NUMBER = LatentSpec({"z": Field((1,))})
WIDTHS = (0.1, 0.3, 1.0)


def check_solver(solver: Solver) -> None:
    """Where and when it evaluates, what it leaves at each time, its order, its independence.

    `solver.order` is met to 0.25 as a slope from 160 to 320 steps, down to what `solver.tolerance`
    allows; a stochastic solver's from 80 to 160, by the exact mean and deviation of what it draws.
    One that chooses its own steps keeps to its tolerance instead.
    """
    name = type(solver).__name__
    _check_calls(solver, name)
    _check_marginals(solver, name)
    if isinstance(solver, Adaptive):
        _check_tolerance(solver, name)
    else:
        _check_order(solver, name)
    _check_few_steps(solver, name)
    for key, spec in SPECS.items():
        _check_space(solver, spec, f"{name} on {key}")
        _check_alone(solver, spec, f"{name} on {key}")
    _check_times_per_sample(solver, name)
    if solver.stochastic:
        _check_refusal(solver, name)


def _check_calls(solver: Solver, name: str) -> None:
    schedule, steps = VariancePreserving(), 7
    times = LogSNRGrid()(schedule, steps)
    exact, calls, ends = GaussianDenoiser(schedule, 0.5, 0.3), [], []

    def denoise(x: Latent, t: Time) -> Latent:
        calls.append(float(t))
        return exact.forward(x, t)

    def note(index: int, t: Tensor, x: Latent) -> None:
        ends.append((index, float(t)))

    x = Noise([0]).like(NUMBER.blank(1))
    solve(solver, denoise, schedule, x, times, Noise([1]), note)
    least, most = solver.cost(steps), solver.evaluations * steps
    assert calls[0] == 1, f"{name}: the first evaluation is at t = {calls[0]}, wanted 1"
    if isinstance(solver, Adaptive):
        assert len(calls) >= least, f"{name}: {len(calls)} evaluations, its cost is {least}"
    else:
        assert len(calls) <= least <= most, f"{name}: {len(calls)}, cost {least}, at most {most}"
    assert min(calls) > 0, f"{name}: evaluates at t = 0, where there is nothing to denoise"
    wanted = [(i, float(times[i])) for i in range(1, steps + 1)]
    assert ends == wanted, f"{name}: steps end at {ends}, the grid is {wanted}"


def responses(
    solver: Solver,
    schedule: Schedule,
    steps: int,
    mean: float,
    std: float,
    draws: int,
    grid: Grid | None = None,
) -> list[tuple[float, float, float]]:
    """(t, mean, deviation) of the state after each step, exactly, for data N(mean, std²).

    The last sample receives no noise at all, hence shows the mean.
    """
    impulses, exact = Impulses(draws + 1), GaussianDenoiser(schedule, mean, std)
    blank = NUMBER.blank(draws + 1, dtype=torch.float64)
    start = schedule.alpha(1.0) * constant(blank, mean) + schedule.alpha(0.0) * impulses.like(blank)
    width = (schedule.alpha(1.0) ** 2 * std**2 + schedule.sigma(1.0) ** 2).sqrt()
    centre = schedule.alpha(1.0) * constant(blank, mean)
    start = centre + width * (start - centre)
    found = []

    def note(index: int, t: Tensor, x: Latent) -> None:
        middle = x["z"][-1:]
        found.append((float(t), float(middle), float((x["z"] - middle)[:-1].norm())))

    times = (grid or LogSNRGrid())(schedule, steps)
    solve(solver, exact, schedule, start, times, impulses, note)
    assert impulses.drawn <= draws, f"{type(solver).__name__} draws more than {draws} times"
    return found


def _check_marginals(solver: Solver, name: str) -> None:
    """Every state has the mean and deviation of x_t, at its own time: for data that are a point, or
    for N(0, 1) until the end, by what the solver takes to be constant on its way."""
    for kind in SCHEDULES:
        schedule = kind()
        allowed = (1e-10 + solver.tolerance) * float(schedule.sigma(1.0))
        of_point = _off(responses(solver, schedule, 9, 0.7, 0.0, 60), schedule, 0.7, 0.0)
        if of_point < allowed:
            continue
        of_normal = _off(responses(solver, schedule, 9, 0.0, 1.0, 60)[:-1], schedule, 0.0, 1.0)
        assert of_normal < allowed, (
            f"{name} on {kind.__name__}: mean or deviation is off by {of_point:.3g} for a point "
            f"and by {of_normal:.3g} for N(0, 1)"
        )


def _off(
    found: list[tuple[float, float, float]], schedule: Schedule, mean: float, width: float
) -> float:
    """How far any mean or deviation is from that of x_t."""
    gaps = []
    for t, middle, std in found:
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        gaps += [abs(middle - alpha * mean), abs(std - math.hypot(alpha * width, sigma))]
    return max(gaps)


def _check_order(solver: Solver, name: str) -> None:
    grid = LogSNRGrid(-14.0, 24.0)  # so far out that its ends, which have no order, count nothing
    first = 80 if solver.stochastic else 160
    for schedule in (VariancePreserving(), RectifiedFlow()):
        errors = []
        for steps in (first, 2 * first):
            error = 0.0
            for width in WIDTHS:
                draws = 1 + 3 * steps if solver.stochastic else 1
                _, mean, std = responses(solver, schedule, steps, 0.5, width, draws, grid)[-1]
                error += ((mean - 0.5) / width) ** 2 + (std / width - 1) ** 2
            errors.append(math.sqrt(error))
        slope = math.log2(errors[0] / errors[1])
        where = f"{name} on {type(schedule).__name__}"
        reached = slope >= solver.order - 0.25 or errors[1] <= 10 * solver.tolerance
        assert reached, f"{where}: order {slope:.2f}, claims {solver.order}; errors {errors}"


def _check_tolerance(solver: Adaptive, name: str) -> None:
    """Samples by their flow's closed form, or by the moments of 4096 draws to 4 deviations."""
    spec = LatentSpec({"z": Field((1024,))})
    for schedule in (VariancePreserving(), RectifiedFlow()):
        exact = GaussianDenoiser(schedule, 0.5, 0.3)
        x, noise = begin(spec, schedule, torch.float64)
        x = x + schedule.alpha(1.0) * constant(x, 0.5)
        found = solve(solver, exact, schedule, x, LogSNRGrid()(schedule, 3), noise)["z"]
        where = f"{name} on {type(schedule).__name__}"
        if solver.stochastic:
            chance = 4 / math.sqrt(found.numel())
            gap = max(abs(float(found.mean()) - 0.5), abs(float(found.std()) - 0.3)) / 0.3
            assert gap < chance + 10 * solver.tolerance, f"{where}: moments are off by {gap:.3g}"
        else:
            gap = float((found - exact.flow(x, 1.0, 0.0)["z"]).square().mean().sqrt())
            assert gap < 10 * solver.tolerance, f"{where}: the error is {gap:.3g}"


def _check_few_steps(solver: Solver, name: str) -> None:
    """What multiplies latents depends on the way alone, hence one space shows all ways."""
    for kind in SCHEDULES:
        for grid in (LogSNRGrid(), UniformGrid()):
            for steps in (2,) if isinstance(solver, Adaptive) else (1, 2, 3, 4, 7, 10):
                where = f"{name} on numbers, {kind.__name__}, {steps} steps"
                _check_way(solver, NUMBER, kind(), grid, steps, where)


def _check_space(solver: Solver, spec: LatentSpec, where: str) -> None:
    """As many steps as take a solver to its full order."""
    steps = 2 if isinstance(solver, Adaptive) else 5
    for kind in SCHEDULES:
        _check_way(solver, spec, kind(), LogSNRGrid(), steps, f"{where}, {kind.__name__}")


def _check_way(
    solver: Solver, spec: LatentSpec, schedule: Schedule, grid: Grid, steps: int, where: str
) -> None:
    exact = GaussianDenoiser(schedule, 0.5, 0.3)
    x, noise = begin(spec, schedule, torch.float64)
    x = solve(solver, exact, schedule, x, grid(schedule, steps), noise)
    finite = all(bool(part.isfinite().all()) for part in x.parts.values())
    assert finite, f"{where}: not finite"
    assert in_subspace(x), f"{where}: leaves the subspace"


def _check_alone(solver: Solver, spec: LatentSpec, where: str) -> None:
    schedule = Cosine()
    exact = GaussianDenoiser(schedule, 0.5, 0.3)
    times = LogSNRGrid()(schedule, 8)
    for dtype, allowed, rows in ((torch.float32, 1e-5, 1), (torch.float64, 1e-12, 4)):
        start, noise = begin(spec, schedule, dtype)
        joint = solve(solver, exact, schedule, start, times, noise)
        assert joint.dtype == dtype, f"{where}: {dtype} in, {joint.dtype} out"
        for i in range(rows):
            own = Noise.of(3, [i])
            lonely = schedule.sigma(1.0) * own.like(alone(start, i))
            lonely = solve(solver, exact, schedule, lonely, times, own)
            gap = distance(lonely, alone(joint, i))
            assert gap <= allowed, f"{where}: sample {i} alone differs by {gap:.3g} in {dtype}"


def _check_times_per_sample(solver: Solver, name: str) -> None:
    """Times of shape (N + 1, B) and (N + 1, B, T) mean the same as (N + 1,) where they agree."""
    schedule, spec = VariancePreserving(), SPECS["video"]
    exact = GaussianDenoiser(schedule, 0.5, 0.3)
    times = LogSNRGrid()(schedule, 6)
    start, noise = begin(spec, schedule, torch.float64)
    wanted = solve(solver, exact, schedule, start, times, noise)
    for shape in ((start.batch,), (start.batch, 3)):
        start, noise = begin(spec, schedule, torch.float64)
        spread = times.reshape(-1, *[1] * len(shape)).expand(-1, *shape)
        got = solve(solver, exact, schedule, start, spread, noise)
        gap = distance(got, wanted)
        assert gap < 1e-10, f"{name}: times of shape (N + 1, {shape}) change x by {gap:.3g}"


def _check_refusal(solver: Solver, name: str) -> None:
    schedule = VariancePreserving()
    x = NUMBER.blank(1)
    try:
        solve(solver, GaussianDenoiser(schedule, 0, 1), schedule, x, torch.tensor([1.0, 0.0]))
    except ValueError:
        return
    raise AssertionError(f"{name} is stochastic, but runs without a Noise")
