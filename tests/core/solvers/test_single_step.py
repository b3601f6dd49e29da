"""Single-step solvers against their papers' formulas, and PNDM against its own."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.counted import Counted
from anylatent.core.solvers.single_step import mean_place
from anylatent.core.testing.sampling import responses
from tests.core.toys import distance, gaussian, start

SPEC = al.LatentSpec({"z": al.Field((4,))})
SINGLE = (
    ("dpm_solver", {"order": 1}),
    ("dpm_solver", {"order": 2}),
    ("dpm_solver", {"order": 3}),
    ("dpmpp_2s", {}),
    ("heun", {}),
    ("pndm", {}),
)


def level(schedule, t):
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    return alpha, sigma, math.log(alpha / sigma)


def noise_of(schedule, exact, x, t):
    alpha, sigma, _ = level(schedule, t)
    return (x - alpha * exact(x, t)) / sigma


def dpm_solver(schedule, exact, x, t, s, order):
    """Algorithms 1, 4 and 5 of 2206.00927, as printed."""
    (a_t, _, l_t), (a_s, b_s, l_s) = level(schedule, t), level(schedule, s)
    h, e = l_s - l_t, noise_of(schedule, exact, x, t)

    def between(r):
        u = float(schedule.time(2 * (l_t + r * h)))
        return (u, *level(schedule, u)[:2])

    if order == 1:
        return a_s / a_t * x - b_s * math.expm1(h) * e
    if order == 2:
        u, a_u, b_u = between(0.5)
        y = a_u / a_t * x - b_u * math.expm1(h / 2) * e
        return a_s / a_t * x - b_s * math.expm1(h) * noise_of(schedule, exact, y, u)
    r1, r2 = 1 / 3, 2 / 3
    (u, a_u, b_u), (v, a_v, b_v) = between(r1), between(r2)
    y = a_u / a_t * x - b_u * math.expm1(r1 * h) * e
    d1 = noise_of(schedule, exact, y, u) - e
    second = b_v * r2 / r1 * (math.expm1(r2 * h) / (r2 * h) - 1)
    y = a_v / a_t * x - b_v * math.expm1(r2 * h) * e - second * d1
    d2 = noise_of(schedule, exact, y, v) - e
    return a_s / a_t * x - b_s * math.expm1(h) * e - b_s / r2 * (math.expm1(h) / h - 1) * d2


def one_step(solver, schedule, x, exact, t, s):
    times = torch.tensor([t, s], dtype=torch.float64)
    return al.solve(solver, exact, schedule, x, times)


@pytest.mark.parametrize("name", ("vp", "edm", "flow"))
@pytest.mark.parametrize("order", (1, 2, 3))
def test_dpm_solver_is_the_papers(name, order):
    schedule, blank = al.get("schedule", name)(), SPEC.blank(2, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    found = one_step(al.get("solver", "dpm_solver")(order=order), schedule, x, exact, 0.7, 0.3)
    assert distance(found, dpm_solver(schedule, exact, x, 0.7, 0.3, order)) < 1e-12


@pytest.mark.parametrize("name", ("vp", "edm", "flow"))
def test_dpmpp_2s_is_the_papers(name):
    """Algorithm 1 of 2211.01095 with r = 1/2."""
    schedule, blank = al.get("schedule", name)(), SPEC.blank(2, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    (_, b_t, l_t), (a_s, b_s, l_s) = level(schedule, 0.7), level(schedule, 0.3)
    u = float(schedule.time(l_t + l_s))
    a_u, b_u, _ = level(schedule, u)
    y = b_u / b_t * x - a_u * math.expm1(-(l_s - l_t) / 2) * exact(x, 0.7)
    wanted = b_s / b_t * x - a_s * math.expm1(-(l_s - l_t)) * exact(y, u)
    found = one_step(al.get("solver", "dpmpp_2s")(), schedule, x, exact, 0.7, 0.3)
    assert distance(found, wanted) < 1e-12


def test_the_mean_of_a_line_keeps_its_digits_for_short_steps():
    for h in (1e-3, 2e-4, 0.99e-4, 1e-6, 0.0, -1e-5, 3.0, -3.0):
        exact = 0.5 if h == 0 else (math.expm1(h) - h) / (h * math.expm1(h))
        series = 0.5 - h / 12 + h**3 / 720 if abs(h) < 0.01 else exact
        found = float(mean_place(torch.tensor(h, dtype=torch.float64)))
        assert found == pytest.approx(series, abs=1e-11)


@pytest.mark.parametrize(("name", "settings"), SINGLE)
@pytest.mark.parametrize("schedule", ("vp", "flow", "cosine"))
def test_the_cost_is_what_is_evaluated(name, settings, schedule):
    """A step from alpha = 0, and that to sigma = 0, takes one evaluation: DDIM's."""
    schedule, blank = al.get("schedule", schedule)(), SPEC.blank(2, dtype=torch.float64)
    exact, _, _ = gaussian(schedule, blank)
    solver = al.get("solver", name)(**settings)
    x, _ = start(schedule, blank)
    for steps in (1, 2, 3, 4, 5, 9):
        times = al.get("grid", "log_snr")()(schedule, steps)
        counted = Counted(exact, 2)
        found = al.solve(solver, counted, schedule, x, times)
        saved = solver.evaluations - 1 if schedule.terminal_snr_is_zero and steps > 1 else 0
        assert counted.calls == solver.cost(steps) - saved
        if steps == 1:
            assert distance(found, exact(x, 1.0)) < 1e-12


def classical(schedule, exact, x, t, s):
    """One pseudo Runge-Kutta step of 2202.09778, eq. 13, with DDIM as its transfer."""

    def transfer(e, u):
        (a_t, b_t, _), (a_u, b_u, _) = level(schedule, t), level(schedule, u)
        return a_u / a_t * (x - b_t * e) + b_u * e

    half = (t + s) / 2
    e1 = noise_of(schedule, exact, x, t)
    e2 = noise_of(schedule, exact, transfer(e1, half), half)
    e3 = noise_of(schedule, exact, transfer(e2, half), half)
    e4 = noise_of(schedule, exact, transfer(e3, s), s)
    return transfer((1 / 6) * (e1 + 2 * e2 + 2 * e3 + e4), s), e1


def test_pndm_is_three_runge_kutta_steps_and_then_adams_and_bashforth():
    schedule, blank = al.get("schedule", "vp")(), SPEC.blank(2, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    times, states = torch.linspace(1, 0.1, 6, dtype=torch.float64), []
    al.solve(
        al.get("solver", "pndm")(),
        exact,
        schedule,
        x,
        times,
        None,
        lambda i, t, x: states.append(x),
    )
    noises = []
    for i in range(3):
        x, e = classical(schedule, exact, x, float(times[i]), float(times[i + 1]))
        noises.append(e)
        assert distance(states[i], x) < 1e-11
    for i in (3, 4):
        noises.append(noise_of(schedule, exact, x, float(times[i])))
        e = (1 / 24) * (55 * noises[-1] - 59 * noises[-2] + 37 * noises[-3] - 9 * noises[-4])
        (a_t, b_t, _), (a_s, b_s, _) = (level(schedule, float(t)) for t in times[i : i + 2])
        x = a_s / a_t * (x - b_t * e) + b_s * e
        assert distance(states[i], x) < 1e-11


@pytest.mark.parametrize("steps", (1, 2, 3, 10, 20, 100))
@pytest.mark.parametrize("width", (0.1, 0.3, 0.5, 1.0, 2.0))
@pytest.mark.parametrize("eta", (0.5, 1.0))
def test_dpmpp_2s_with_noise_has_the_variance_of_its_recursion(steps, width, eta):
    """Down to sigma_s·(ρ_s/ρ_t)^{η²} by the plain step, and up by fresh noise, by hand."""
    schedule = al.get("schedule", "vp")()
    times = al.get("grid", "log_snr")()(schedule, steps).tolist()
    gain = lambda a, b: a * width**2 / (a**2 * width**2 + b**2)  # noqa: E731
    variance = float(schedule.alpha(1.0)) ** 2 * width**2 + float(schedule.sigma(1.0)) ** 2
    for t, s in zip(times[:-1], times[1:], strict=True):
        a_t, b_t, l_t = level(schedule, t)
        a_s, b_s = float(schedule.alpha(s)), float(schedule.sigma(s))
        ratio = b_s / a_s * a_t / b_t
        down = b_s * ratio ** (eta**2)
        factor = down / b_t + (a_s - a_t * down / b_t) * gain(a_t, b_t)
        if s > 0:
            a_u, b_u, _ = level(schedule, float(schedule.time(l_t + math.log(a_s / down))))
            middle = b_u / b_t + (a_u - a_t * b_u / b_t) * gain(a_t, b_t)
            factor = down / b_t + (a_s - a_t * down / b_t) * gain(a_u, b_u) * middle
        variance = factor**2 * variance + b_s**2 - (b_s * ratio ** (eta**2)) ** 2
    solver = al.get("solver", "dpmpp_2s")(eta=eta)
    _, mean, std = responses(solver, schedule, steps, 0.7, width, steps + 1)[-1]
    assert mean == pytest.approx(0.7, abs=1e-10) and std == pytest.approx(math.sqrt(variance))


def test_dpmpp_2s_with_noise_converges_along_one_path():
    """The same seed at N and 2N steps: the end moves less and less."""
    schedule, blank = al.get("schedule", "vp")(), SPEC.blank(64, dtype=torch.float64)
    exact, _, _ = gaussian(schedule, blank)
    solver, ends = al.get("solver", "dpmpp_2s")(eta=1.0), []
    for steps in (10, 20, 40, 80):
        x, noise = start(schedule, blank)
        times = al.get("grid", "log_snr")()(schedule, steps)
        ends.append(al.solve(solver, exact, schedule, x, times, noise))
    gaps = [float((b - a).norm().mean()) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    assert gaps[1] < 0.75 * gaps[0] and gaps[2] < 0.75 * gaps[1] and gaps[2] < 0.2


def test_settings_that_have_no_meaning():
    with pytest.raises(ValueError, match="orders 1, 2 and 3"):
        al.get("solver", "dpm_solver")(order=4)
    with pytest.raises(ValueError, match="eta"):
        al.get("solver", "dpmpp_2s")(eta=-1.0)
