"""Multistep solvers: their order by slope, from pure noise and from the middle."""

import functools
import itertools
import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.counted import Counted
from tests.core.toys import gaussian, start
from tests.matrix import covering

FINE = al.LatentSpec({"z": al.Field((3, 4))})
CASES = [
    *((f"adams:{o}", {"order": o}, o) for o in (2, 3, 4)),
    *((f"adams:{o} without", {"order": o, "corrector": False}, o) for o in (1, 2, 3, 4)),
    *(
        (f"unipc:{o}{v}", {"order": o, "variant": v}, o + 1)
        for o in (1, 2, 3)
        for v in ("bh1", "bh2")
    ),
    *((f"unipc:{o} without", {"order": o, "corrector": False}, o) for o in (1, 2, 3)),
    *((f"deis:{o}", {"order": o}, o) for o in (1, 2, 3)),
    *((f"deis:{o} ratio", {"order": o, "coordinate": "ratio"}, o) for o in (1, 2, 3)),
    *((f"dpm_solver_m:{o}", {"order": o}, o) for o in (1, 2, 3)),
    ("dpmpp_2m", {}, 2),
    ("dpmpp_3m", {}, 3),
    ("plms", {}, 2),
]


def made(name, settings):
    return al.get("solver", name.split(":")[0])(**settings)


WIDE = functools.partial(al.get("grid", "log_snr"), -14.0, 22.0)  # ends that count nothing


SOFT = al.get("grid", "soft")


def solve(solver, denoise, schedule, x, steps, noise=None, grid=SOFT):
    return al.solve(solver, denoise, schedule, x, grid()(schedule, steps), noise)


@pytest.mark.parametrize(("case", "schedule"), covering(CASES, ("vp", "flow", "edm", "cosine")))
def test_order_by_slope(case, schedule):
    """Against the exact flow; the last error is far from any floor of the grid's ends."""
    name, settings, order = case
    solver, schedule = made(name, settings), al.get("schedule", schedule)()
    assert solver.order == order and solver.evaluations == 1
    blank = FINE.blank(4, dtype=torch.float64)
    exact, mean, std = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    wanted = exact.flow(x, 1.0, 0.0)
    errors = []
    for steps in (80, 160, 320):
        gap = (solve(solver, exact, schedule, x, steps, grid=WIDE) - wanted).map(
            lambda a, b: a / b, std
        )
        errors.append(float((gap.norm() ** 2 / gap.dim).mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert errors[-1] < 1e-9 or max(slopes) > order - 0.25, (errors, slopes)
    assert min(slopes) > 0.5, (errors, slopes)


MIDDLE = [case for case in CASES if case[0] != "plms" and case[2] > 1]


def from_the_middle(schedule, blank, begin, end):
    """The exact denoiser, its state at `begin`, and where the flow takes it by `end`."""
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    begin, end = torch.tensor(begin).double(), torch.tensor(end).double()
    x = exact.flow(x, torch.ones(()).double(), begin)
    return exact, x, exact.flow(x, begin, end)


@pytest.mark.parametrize(
    ("case", "way"), covering(MIDDLE, list(itertools.product(("down", "up"), ("vp", "flow"))))
)
def test_order_from_the_middle(case, way):
    """A solution begun where the data show keeps its order, and so does an inversion."""
    (name, settings, order), (direction, schedule) = case, way
    begin, end = (0.7, 0.2) if direction == "down" else (0.2, 0.7)
    solver, schedule = made(name, settings), al.get("schedule", schedule)()
    exact, x, wanted = from_the_middle(schedule, FINE.blank(4, dtype=torch.float64), begin, end)
    errors = []
    for steps in (40, 80, 160):
        counting, times = Counted(exact, x.batch), torch.linspace(begin, end, steps + 1).double()
        found = solver.run(counting, schedule, x, times, None, None)
        assert counting.calls <= steps + 1
        errors.append(float((found - wanted).norm().square().mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert max(slopes) > order - 0.35, (errors, slopes)


def test_a_start_in_the_middle_costs_one_evaluation_and_only_there():
    schedule = al.get("schedule", "vp")()
    exact, x, _ = from_the_middle(schedule, FINE.blank(2, dtype=torch.float64), 1.0, 0.1)
    for name, begin, steps, calls in (
        ("unipc", 1.0, 16, 16),
        ("unipc", 0.9, 16, 17),
        ("unipc", 0.9, 3, 3),
        ("dpmpp_2m", 0.9, 16, 16),
        ("dpmpp_3m", 0.9, 16, 17),
    ):
        counting = Counted(exact, x.batch)
        times = torch.linspace(begin, 0, steps + 1).double()
        al.solve(al.get("solver", name)(), counting, schedule, x, times)
        assert counting.calls == calls, (name, begin, steps)
    counting, times = Counted(exact, x.batch), torch.tensor([0.9, 0.2, 0.15, 0.1, 0.0])
    al.solve(al.get("solver", "unipc")(), counting, schedule, x, times)
    assert counting.calls == 4, "its first step is too long to be mended"


@pytest.mark.parametrize(("name", "degree"), (("unipc", 2), ("dpmpp_3m", 1)))
def test_a_start_in_the_middle_is_exact_for_polynomials(name, degree):
    """x0 = λ^degree whatever x is: x/sigma moves by ∫ x0 dκ, κ = exp(λ/2), from the first step on.

    A start of order four corrects its first two steps by a parabola, one of three by a line.
    """
    schedule, x = al.get("schedule", "vp")(), FINE.blank(2, dtype=torch.float64)
    times = schedule.time(torch.linspace(-1.5, 2.5, 9).double())

    def denoise(x, t):
        return x.map(lambda z: torch.full_like(z, float(schedule.log_snr(t)) ** degree))

    def integral(log_snr):
        low = {1: log_snr - 2, 2: log_snr**2 - 4 * log_snr + 8}[degree]
        return low * torch.exp(0.5 * log_snr)

    end = al.solve(al.get("solver", name)(), denoise, schedule, x, times)
    first, last = schedule.log_snr(times[0]), schedule.log_snr(times[-1])
    wanted = schedule.sigma(times[-1]) * (integral(last) - integral(first))
    assert torch.allclose(end["z"], wanted.expand_as(end["z"]), atol=1e-9)


@pytest.mark.parametrize("name", ("vp", "flow", "edm"))
@pytest.mark.parametrize(
    ("grid", "solver"),
    covering(("karras", "uniform", "log_snr", "soft"), ("unipc", "dpmpp_3m", "deis")),
)
@pytest.mark.parametrize("steps", (9, 12))
def test_a_start_in_the_middle_makes_no_inversion_worse(solver, grid, name, steps):
    """Where the first step is long its correction would lead away, thousands of times as far."""
    schedule, grid = al.get("schedule", name)(), al.get("grid", grid)()
    times, blank = grid(schedule, steps), FINE.blank(4, dtype=torch.float64)
    exact, _, std = gaussian(schedule, blank)
    x0 = al.Noise.of(0, 4).like(blank).map(torch.mul, std)
    wanted = exact.flow(x0, times[-1], times[0])
    plain = al.get("solver", solver)()
    plain.restarts = lambda schedule, times: torch.zeros_like(times[0], dtype=torch.bool)
    both = (al.get("solver", solver)(), plain)
    ours, without = (
        float((al.invert(one, exact, schedule, x0, times) - wanted).norm().mean()) for one in both
    )
    assert ours < (1.3 if without < 1 else 5) * without  # beyond, the way up itself amplifies


def test_what_remembers_is_not_asked_twice_at_one_time():
    """It would take the second call for a step: momentum, self-conditioning."""
    schedule, counted = al.get("schedule", "vp")(), Counted(lambda x, t: 0.5 * x, 3)
    x, times = FINE.blank(3).map(torch.ones_like), torch.linspace(0.8, 0, 11).double()
    al.solve(al.get("solver", "dpmpp_3m")(), counted, schedule, x, times)
    assert counted.calls == 11
    asked = []

    class Remembering(al.Denoise):
        remembers = True

        def __call__(self, x, t):
            asked.append(float(t))
            return 0.5 * x

    al.solve(al.get("solver", "dpmpp_3m")(), Remembering(), schedule, x, times)
    assert asked == times[:-1].tolist()


@pytest.mark.parametrize("name", ("adams", "unipc", "deis"))
def test_starts_of_one_batch_do_not_mix(name):
    """A sample from pure noise has its own start, whatever another of its batch does."""
    solver, schedule = al.get("solver", name)(), al.get("schedule", "vp")()
    exact, mean, _ = gaussian(schedule, FINE.blank(2, dtype=torch.float64))
    x, _ = start(schedule, FINE.blank(2, dtype=torch.float64), mean)
    exact = al.testing.GaussianDenoiser(schedule, 0.3, 0.5)
    begins = torch.tensor([1.0, 0.6]).double()
    times = torch.linspace(1, 0, 21).double()[:, None] * begins
    both = al.solve(solver, exact, schedule, x, times)
    for k, begin in enumerate(begins):
        alone = x.map(lambda z, k=k: z[k : k + 1])
        found = al.solve(solver, exact, schedule, alone, times[:, k])
        assert torch.allclose(found["z"][0], both["z"][k], atol=1e-12), float(begin)


def test_the_error_of_the_default_falls_without_a_floor():
    solver, schedule = al.get("solver", "adams")(), al.get("schedule", "vp")()
    blank = al.LatentSpec({"z": al.Field((7,))}).blank(1, dtype=torch.float64)
    std = blank.map(lambda z: torch.logspace(math.log10(0.05), math.log10(3), 7).double()[None])
    exact = al.testing.GaussianDenoiser(schedule, 0.0, std)
    x = blank.map(torch.ones_like)
    wanted = exact.flow(x, 1.0, 0.0)
    errors = [
        float(((solve(solver, exact, schedule, x, n) - wanted)["z"] / std["z"]).abs().max())
        for n in (10, 20, 40, 80, 160, 320)
    ]
    assert all(b < 0.3 * a for a, b in itertools.pairwise(errors)), errors
    assert errors[-1] < 1e-6


@pytest.mark.parametrize(
    ("betas", "least"), (((1e-4, 0.02, 1.0), 0.027), ((8.5e-4, 0.012, 2.0), 0.020))
)
def test_the_default_is_accurate_with_ten_steps(betas, least):
    """On DDPM's and Stable Diffusion's tables; the widths of benchmarks/solver_accuracy.py."""
    schedule = al.get("schedule", "table")(*betas[:2], 1000, betas[2])
    blank = al.LatentSpec({"z": al.Field((100,))}).blank(1, dtype=torch.float64)
    std = blank.map(lambda z: torch.logspace(math.log10(0.05), math.log10(3), 100).double()[None])
    exact = al.testing.GaussianDenoiser(schedule, 0.0, std)
    x = schedule.sigma(1.0) * blank.map(torch.ones_like)
    end = solve(al.get("solver", "adams")(), exact, schedule, x, 10)
    gap = (end - exact.flow(x, 1.0, 0.0))["z"]
    error = float((gap / std["z"]).square().mean().sqrt())
    assert error < least
