"""The yardstick itself: problems, reference and the running of diffusers in solver_accuracy.py."""

import pytest
import torch

import anylatent as al
from benchmarks import solver_accuracy as bench


@pytest.fixture(scope="module")
def schedule():
    return al.get("schedule", "table")(*bench.BETAS["linear"][:2], bench.TIMES, 1.0)


@pytest.fixture(scope="module")
def gaussian(schedule):
    return bench.gaussians(7, "linear", schedule)


def test_the_reference_is_the_exact_flow(schedule, gaussian):
    found = bench.reference(gaussian.denoise, schedule, gaussian.start, 200)
    assert gaussian.errors(found).max() < 1e-4
    finer = bench.reference(gaussian.denoise, schedule, gaussian.start, 400)
    assert gaussian.errors(finer).max() < gaussian.errors(found).max() / 8, "fourth order"


def test_mixtures_are_the_exact_denoiser_of_each_problem(schedule):
    draws = al.Noise.of(3, bench.COUNT)
    means, weights = draws.normal(4, 2).double(), torch.softmax(draws.normal(4).double(), -1)
    mine = bench.Mixtures(schedule, means, torch.full((bench.COUNT, 4), 0.3).double(), weights)
    blank = bench.blank(bench.COUNT * bench.STARTS, 2)
    x = al.Noise.of(4, blank.batch).like(blank)
    for t in (0.05, 0.4, 1.0):
        got = mine(x, t)
        for k in (0, 13):
            rows = slice(k * bench.STARTS, (k + 1) * bench.STARTS)
            each = [bench.blank(1, 2).replace(z=mean[None]) for mean in means[k]]
            exact = al.testing.MixtureDenoiser(schedule, each, 0.3, weights[k].tolist())
            gap = (got.select(rows) - exact(x.select(rows), t)).norm().max()
            assert gap < 1e-6, "weights of the other are in float32"


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_diffusers_is_run_as_the_method_that_it_is(schedule, gaussian):
    """Told its own levels, its DPM-Solver++ 2M is ours on its grid, and DDIM its first order."""
    for order, name in ((1, "ddim"), (2, "dpmpp_2m")):
        for spacing in ("Karras", "exponential", "log-SNR"):
            settings = {"solver_order": order, **bench.SPACINGS[spacing]}
            kind = "DPMSolverMultistepScheduler"
            other = bench.their_errors(kind, settings, 20, gaussian, exact=True)
            times = levels(schedule, spacing)
            end = al.solve(
                al.get("solver", name)(), gaussian.denoise, schedule, gaussian.start, times
            )
            torch.testing.assert_close(gaussian.errors(end), other, rtol=1e-4, atol=1e-9)


def levels(schedule, spacing, steps=20):
    """The times of diffusers' grids, from their definitions."""
    ends = schedule.log_snr(torch.tensor([1.0, 1 / bench.TIMES], dtype=torch.float64))
    part = torch.linspace(0, 1, steps, dtype=torch.float64)
    if spacing == "Karras":
        sigma = torch.lerp(*torch.exp(-0.5 * ends / 7), part) ** 7
        inner = schedule.time(-2 * sigma.log())
    else:
        inner = schedule.time(torch.lerp(*ends, part))
    return torch.cat([torch.ones(1), inner[1:], torch.zeros(1)]).double()


def test_errors_are_of_the_right_problem_and_scale(gaussian):
    assert gaussian.errors(gaussian.end).max() == 0
    moved = gaussian.end["z"].clone()
    moved[3] += 0.1 * gaussian.scale[3, 0]
    errors = gaussian.errors(gaussian.end.replace(z=moved))
    assert errors[3] == pytest.approx(0.1) and errors.sum() == errors[3]
    broken = gaussian.end.replace(z=moved * float("nan"))
    assert torch.isinf(gaussian.errors(broken)).all()


def test_costs_are_checked_and_more_steps_help(gaussian):
    grid, solver = al.get("grid", "log_snr")(), al.get("solver", "dpmpp_2m")()
    errors = [bench.error_of(solver, grid, n, gaussian) for n in (10, 40)]
    assert errors[1] < errors[0] / 4
    with pytest.raises(ValueError, match="evaluations for 10 steps"):
        bench.error_of(al.get("solver", "heun")(), grid, 10, gaussian)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_the_best_of_diffusers_is_the_least_of_all_variants(gaussian, monkeypatch):
    some = [item for item in bench.theirs() if "DPM-Solver++ 2 midpoint" in item[0]]
    assert len(list(bench.theirs())) == 44 and len(some) == 8
    monkeypatch.setattr(bench, "theirs", lambda: some)
    best, which = bench.best_of_theirs(gaussian, 10, exact=False)
    every = [bench.their_errors(k, s, 10, gaussian, False).median() for _, k, s in some]
    assert best <= min(every) * 1.5 and "DPM-Solver++ 2" in which


def test_seeds_give_other_problems(schedule):
    first, second = (bench.gaussians(seed, "linear", schedule) for seed in (0, 1))
    assert (first.scale != second.scale).all()
    assert 0.05 <= first.scale.min() and first.scale.max() <= 3
