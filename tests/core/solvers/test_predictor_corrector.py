"""Predictor and corrector: the law that its Langevin steps leave, for any base."""

import itertools
import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.counted import Counted
from anylatent.core.solvers.predictor_corrector import PredictorCorrector
from anylatent.core.testing.sampling import responses
from tests.core.toys import distance, gaussian, start

SPEC = al.LatentSpec({"z": al.Field((4,))})


def std_by_hand(schedule, times, width, corrections, rate):
    """The recursion on N(μ, s²): Euler's step in sigma/alpha, then Ornstein and Uhlenbeck's."""
    variance = float(schedule.alpha(1.0)) ** 2 * width**2 + float(schedule.sigma(1.0)) ** 2
    for t, s in itertools.pairwise(times.tolist()):
        a_t, b_t, a_s, b_s = (float(f(u)) for u in (t, s) for f in (schedule.alpha, schedule.sigma))
        gain = a_t * width**2 / (a_t**2 * width**2 + b_t**2)
        variance *= (b_s / b_t + (a_s - a_t * b_s / b_t) * gain) ** 2
        if b_s == 0:
            continue
        c = ((b_s / a_s) / (b_t / a_t)) ** rate  # exp of -rate times the step in log(alpha/sigma)
        gain = a_s * width**2 / (a_s**2 * width**2 + b_s**2)
        for _ in range(corrections):
            variance = (c + (1 - c) * a_s * gain) ** 2 * variance + b_s**2 * (1 - c**2)
    return math.sqrt(variance)


@pytest.mark.parametrize("width", (0.1, 0.3, 0.5, 1.0, 2.0))
@pytest.mark.parametrize(("corrections", "rate"), ((1, 1.0), (2, 0.3)))
def test_its_variance_is_that_of_the_recursion(width, corrections, rate):
    schedule = al.get("schedule", "vp")()
    solver = PredictorCorrector(al.get("solver", "euler")(), corrections, rate)
    for steps in (1, 2, 10, 20, 100):
        times = al.get("grid", "log_snr")()(schedule, steps)
        wanted = std_by_hand(schedule, times, width, corrections, rate)
        _, mean, std = responses(solver, schedule, steps, 0.7, width, 1 + 3 * steps)[-1]
        assert mean == pytest.approx(0.7, abs=1e-10) and std == pytest.approx(wanted, rel=1e-9)


def test_corrections_repair_a_wrong_start():
    """What the predictor alone would carry to the end, Langevin's steps forget."""
    schedule, blank = al.get("schedule", "vp")(), SPEC.blank(256, dtype=torch.float64)
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    times, spreads = al.get("grid", "log_snr")()(schedule, 40), []
    for solver in (al.get("solver", "euler")(), PredictorCorrector(al.get("solver", "euler")())):
        x, noise = start(schedule, blank)
        found = al.solve(solver, exact, schedule, 3 * x, times, noise)  # three times too wide
        spreads.append(float(found["z"].std()) / 0.3)
    assert spreads[0] > 2.5 and abs(spreads[1] - 1) < 0.15, spreads


@pytest.mark.parametrize("base", ("ddpm", "heun", "dpmpp_3m", "dpm_solver", "paradigms"))
def test_any_solver_may_be_its_base(base):
    schedule, blank = al.get("schedule", "flow")(), SPEC.blank(2, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)
    solver = PredictorCorrector(al.get("solver", base)(), corrections=2)
    for steps in (1, 2, 3, 8):
        times = al.get("grid", "log_snr")()(schedule, steps)
        x, noise = start(schedule, blank, mean)
        counted = Counted(exact, 2)
        found = al.solve(solver, counted, schedule, x, times, noise)
        assert bool(found["z"].isfinite().all())
        assert counted.calls <= solver.cost(steps) <= solver.evaluations * steps
    # a point mass is met exactly, whatever the base
    point = al.testing.GaussianDenoiser(schedule, mean, 0.0)
    assert distance(al.solve(solver, point, schedule, x, times, noise), mean + 0 * x) < 1e-10


def test_settings_from_the_command_line():
    node = {"name": "predictor_corrector", "corrections": 2, "base": {"name": "ddim", "eta": 0.5}}
    from anylatent.core.registry.building import build

    solver = build("solver", node)
    assert (solver.corrections, solver.base.eta, solver.evaluations) == (2, 0.5, 3)
    with pytest.raises(ValueError, match="corrections >= 1"):
        PredictorCorrector(corrections=0)
    for base in ("plms", "pndm", "deis"):
        with pytest.raises(ValueError, match="another base"):
            PredictorCorrector(al.get("solver", base)())
    with pytest.raises(ValueError, match="rate > 0"):
        PredictorCorrector(rate=0.0)


@pytest.mark.parametrize("base", ("dopri5", "unipc", "adams", "deis", "plms", "pndm"))
def test_a_base_that_remembers_more_than_x0_is_refused(base):
    """A slope, a correction or the noise at x_t, which a Langevin step makes another."""
    with pytest.raises(ValueError, match="give predictor_corrector another base"):
        PredictorCorrector(al.get("solver", base)())
    if base == "unipc":
        PredictorCorrector(al.get("solver", base)(corrector=False))
