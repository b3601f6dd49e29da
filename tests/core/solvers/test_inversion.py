"""Data to noise and back, with every solver that draws no noise."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.solvers import ParaDiGMS, invert
from tests.core.toys import distance, gaussian
from tests.matrix import covering

SPEC = al.LatentSpec({"z": al.Field((4,))})
SOLVERS = [name for name in al.names("solver") if not al.get("solver", name)().stochastic]


def problem(name):
    schedule, blank = al.get("schedule", name)(), SPEC.blank(3, dtype=torch.float64)
    exact, mean, std = gaussian(schedule, blank)
    x0 = mean + al.Noise.of(1, 3).like(blank).map(lambda z, s: z * s, std)
    return schedule, exact, x0


def there_and_back(solver, exact, schedule, x0, times):
    """How far the noise is from the exact flow's, and how far x0 is moved."""
    start = schedule.alpha(times[-1]) * x0
    noise = invert(solver, exact, schedule, start, times)
    back = al.solve(solver, exact, schedule, noise, times)
    return distance(noise, exact.flow(start, times[-1], times[0])), distance(back, start)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_round_trip_falls_at_the_order_5145_10695(name):
    schedule, exact, x0 = problem("cosine")
    solver, errors = al.get("solver", name)(), []
    for steps in (100, 200):
        points = torch.linspace(-16, 17, steps + 1, dtype=torch.float64)  # low orders at the ends
        errors.append(there_and_back(solver, exact, schedule, x0, schedule.time(points)))
    order = min(solver.order, 4)
    for coarse, fine in zip(*errors, strict=True):
        fell = math.log2(coarse / fine) > order - 0.4
        assert fell or fine < 10 * solver.tolerance, (order, errors)


@pytest.mark.parametrize(("name", "schedule"), covering(SOLVERS, ("vp", "flow", "edm", "cosine")))
def test_the_whole_way_from_t_0_to_t_1(name, schedule):
    """Also to alpha = 0, and from sigma = 0, which costs the square of the last level."""
    schedule, exact, x0 = problem(schedule)
    solver, errors = al.get("solver", name)(), []
    for steps in (20, 60):
        times = al.get("grid", "log_snr")()(schedule, steps)
        errors.append(there_and_back(solver, exact, schedule, x0, times)[1])
    assert errors[1] < max(0.45 * errors[0], 10 * solver.tolerance), errors
    assert errors[1] < 0.12


@pytest.mark.parametrize("key", al.testing.SPECS)
def test_on_every_kind_of_latent(key):
    schedule, blank = al.get("schedule", "flow")(), al.testing.example(al.testing.SPECS[key])
    exact, mean, _ = gaussian(schedule, blank)
    x0 = mean + 0.2 * al.Noise.of(1, 4).like(blank)
    times = schedule.time(torch.linspace(-9, 9, 81, dtype=torch.float64))
    for name in ("heun", "dpmpp_3m", "dopri5"):
        solver = al.get("solver", name)()
        noise = invert(solver, exact, schedule, x0, times)
        assert al.testing.in_subspace(noise)
        assert distance(al.solve(solver, exact, schedule, noise, times), x0) < 2e-2


def test_paradigms_inverts_as_its_base():
    schedule, exact, x0 = problem("vp")
    base, times = al.get("solver", "heun")(), al.get("grid", "log_snr")()(schedule, 20)
    wanted = invert(base, exact, schedule, x0, times)
    found = invert(ParaDiGMS(base, tolerance=0.0), exact, schedule, x0, times)
    assert distance(found, wanted) < 1e-11


def test_what_can_not_be_inverted():
    schedule, exact, x0 = problem("vp")
    times = al.get("grid", "log_snr")()(schedule, 5)
    for name in ("ddpm", "adaptive_sde", "predictor_corrector", "dpmpp_2m_sde"):
        with pytest.raises(ValueError, match="only a deterministic solver"):
            invert(al.get("solver", name)(), exact, schedule, x0, times)
    with pytest.raises(ValueError, match="two of them above 0"):
        invert(al.get("solver", "euler")(), exact, schedule, x0, times[[0, -1]])
