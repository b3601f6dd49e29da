"""Adaptive solvers: error by tolerance, evaluations, and each sample on its own."""

import itertools
import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.counted import Counted
from anylatent.core.denoisers.exact import constant
from anylatent.core.testing.sampling import responses
from tests.core.toys import alone, distance, gaussian, start
from tests.matrix import covering

SPEC = al.LatentSpec({"z": al.Field((5,))})
SCHEDULES = ("vp", "cosine", "edm", "flow", "table", "shifted")


def solved(solver, exact, schedule, x, noise=None, steps=1):
    counted = Counted(exact, x.batch)
    times = al.get("grid", "log_snr")()(schedule, steps)
    return al.solve(solver, counted, schedule, x, times, noise), counted


def mixture(schedule, std=0.2):
    draw = al.Noise.of(7, 1)
    means = [draw.like(SPEC.blank(1, dtype=torch.float64)) for _ in range(4)]
    return al.testing.MixtureDenoiser(schedule, means, std)


@pytest.mark.parametrize(("name", "key"), covering(SCHEDULES, al.testing.SPECS))
def test_the_error_on_gaussians_is_below_the_tolerance(name, key):
    schedule = al.get("schedule", name)()
    blank = al.testing.example(al.testing.SPECS[key])
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, mean)
    wanted = exact.flow(x, 1.0, 0.0)
    for tolerance in (1e-2, 1e-4, 1e-6):
        found, _ = solved(al.get("solver", "dopri5")(tolerance=tolerance), exact, schedule, x)
        assert float(found.mse(wanted).sqrt().max()) < 3 * tolerance
        assert al.testing.in_subspace(found)


def test_error_and_evaluations_follow_the_tolerance_on_a_mixture():
    schedule = al.get("schedule", "vp")()
    exact = mixture(schedule)
    x, _ = start(schedule, SPEC.blank(16, dtype=torch.float64))
    wanted, _ = solved(al.get("solver", "dopri5")(tolerance=1e-8), exact, schedule, x)
    check, _ = solved(al.get("solver", "heun")(), exact, schedule, x, steps=600)
    assert float((wanted - check).norm().max()) < 1.25e-3  # another method's answer
    spent = 0
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
        found, counted = solved(al.get("solver", "dopri5")(tolerance=tolerance), exact, schedule, x)
        errors = found.mse(wanted).sqrt()  # the largest where two modes are equally near
        assert float(errors.median()) < 5 * tolerance and float(errors.max()) < 100 * tolerance
        assert spent < int(counted.evaluations.sum()) and counted.calls < 400
        spent = int(counted.evaluations.sum())


def test_the_grid_says_where_to_stop_not_how_to_step():
    schedule = al.get("schedule", "flow")()
    exact = mixture(schedule)
    x, _ = start(schedule, SPEC.blank(4, dtype=torch.float64))
    solver, seen = al.get("solver", "dopri5")(tolerance=1e-6), []
    times = torch.tensor([1.0, 0.6, 0.25, 0.0], dtype=torch.float64)
    al.solve(solver, exact, schedule, x, times, None, lambda i, t, z: seen.append((t, z)))
    assert [float(t) for t, _ in seen] == [0.6, 0.25, 0.0]
    for t, z in seen:
        direct = al.solve(solver, exact, schedule, x, torch.tensor([1.0, float(t)]))
        assert float((z - direct).norm().max()) < 1e-4


class Hard(al.Denoiser):
    """Each sample has data of its own deviation; the estimates of a wide one go up and down."""

    def __init__(self, schedule, widths):
        super().__init__()
        self.schedule, self.widths = schedule, widths

    def select(self, index):
        return Hard(self.schedule, self.widths[index])

    def forward(self, x, t, cond=None):
        alpha, sigma = self.schedule.coefficients(torch.as_tensor(t, dtype=torch.float64))
        waves = torch.sin(3 * self.schedule.log_snr(t).clamp(-30, 30))
        turn = 1 + 0.5 * waves * (self.widths > 1.5)
        gain = alpha * self.widths**2 / (alpha**2 * self.widths**2 + sigma**2)
        return (gain * turn) * x


@pytest.mark.parametrize("name", ("dopri5", "adaptive_sde"))
def test_a_hard_neighbour_changes_nothing(name):
    """Bit for bit, and at no cost but its own."""
    schedule, solver = al.get("schedule", "vp")(), al.get("solver", name)()
    widths = torch.tensor([0.5, 2.0, 1.0, 0.3], dtype=torch.float64)
    blank = SPEC.blank(4, dtype=torch.float64)
    x, noise = start(schedule, blank)
    found, counted = solved(solver, Hard(schedule, widths), schedule, x, noise, steps=3)
    assert int(counted.evaluations[1]) > int(counted.evaluations[[0, 2, 3]].max())
    assert counted.calls < int(counted.evaluations.sum())
    for i in range(4):
        own = al.Noise.of(0, [i])
        first = schedule.sigma(1.0) * own.like(alone(blank, i))
        one, counts = solved(solver, Hard(schedule, widths[[i]]), schedule, first, own, steps=3)
        assert torch.equal(one["z"][0], found["z"][i])
        assert int(counts.evaluations[0]) == int(counted.evaluations[i])


def test_a_plain_function_is_solved_too():
    """It can't be asked for some of its samples, which only costs more."""
    schedule = al.get("schedule", "vp")()
    widths = torch.tensor([0.5, 2.0, 1.0, 0.3], dtype=torch.float64)
    hard = Hard(schedule, widths)
    x, _ = start(schedule, SPEC.blank(4, dtype=torch.float64))
    solver = al.get("solver", "dopri5")()
    found, counted = solved(solver, lambda x, t: hard(x, t), schedule, x)
    wanted, fewer = solved(solver, hard, schedule, x)
    assert distance(found, wanted) == 0
    assert counted.evaluations.tolist() == [counted.calls] * 4
    assert int(fewer.evaluations.sum()) < int(counted.evaluations.sum())


def test_the_sde_follows_one_path_whatever_its_steps():
    """Along one Brownian path its end converges as the tolerance falls: rejected noise is kept."""
    schedule, ends, spent = al.get("schedule", "vp")(), [], []
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    for tolerance in (0.1, 0.03, 0.01, 0.003):
        x, noise = start(schedule, SPEC.blank(32, dtype=torch.float64))
        solver = al.get("solver", "adaptive_sde")(tolerance=tolerance)
        found, counted = solved(solver, exact, schedule, x, noise)
        ends.append(found)
        spent.append(counted.evaluations)
    gaps = [float((end - ends[-1]).mse(end.zeros()).sqrt().mean()) for end in ends[:-1]]
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.4 * gaps[0] and gaps[2] < 0.05, gaps
    for fewer, more in zip(spent[:-1], spent[1:], strict=True):
        assert float(more.double().mean()) > 1.2 * float(fewer.double().mean())
        assert bool((more >= fewer).all())


def std_by_hand(schedule, times, width):
    """The recursion on N(μ, width²): Euler's ancestral step, then the mean of both x0; x0 last."""
    (*levels, _) = [(float(schedule.alpha(t)), float(schedule.sigma(t))) for t in times]
    gains = [a * width**2 / (a**2 * width**2 + b**2) for a, b in levels]
    variance = (levels[0][0] * width) ** 2 + levels[0][1] ** 2
    for ((a_t, b_t), g_t), ((a_s, b_s), g_s) in itertools.pairwise(zip(levels, gains, strict=True)):
        beta = 1 - (a_t / a_s) ** 2
        on_x, on_x0 = (a_t / a_s) * b_s**2 / b_t**2, a_s * beta / b_t**2  # the posterior's mean
        up = math.sqrt(beta) * b_s / b_t
        euler = on_x + on_x0 * g_t
        kept = on_x + 0.5 * on_x0 * (g_t + g_s * euler)
        variance = kept**2 * variance + (up + 0.5 * on_x0 * g_s * up) ** 2
    return math.sqrt(gains[-1] ** 2 * variance)


@pytest.mark.parametrize(("width", "steps"), covering((0.1, 0.3, 0.5, 1.0, 2.0), (10, 20, 100)))
def test_the_sde_of_given_steps_has_the_variance_of_its_recursion(width, steps):
    """With a tolerance that no step exceeds, nor wants to be shorter than the grid's."""
    schedule = al.get("schedule", "vp")()
    times = al.get("grid", "log_snr")()(schedule, steps)
    solver = al.get("solver", "adaptive_sde")(tolerance=0.99)
    found = responses(solver, schedule, steps, 0.7, width, 2 * steps)
    _, mean, std = found[-1]
    assert mean == pytest.approx(0.7, abs=1e-9)
    assert std == pytest.approx(std_by_hand(schedule, times, width), rel=1e-8)


@pytest.mark.parametrize("width", (0.1, 0.3, 0.5, 1.0, 2.0))
def test_the_sde_has_the_moments_of_the_data(width):
    """At a tight tolerance, to four deviations of what 4096 draws tell of them."""
    schedule = al.get("schedule", "vp")()
    blank = al.LatentSpec({"z": al.Field((2048,))}).blank(2, dtype=torch.float64)
    exact = al.testing.GaussianDenoiser(schedule, 0.5, width)
    x, noise = start(schedule, blank)
    x = x + schedule.alpha(1.0) * constant(blank, 0.5)
    found, _ = solved(al.get("solver", "adaptive_sde")(tolerance=0.003), exact, schedule, x, noise)
    assert abs(float(found["z"].mean()) - 0.5) < 4 * width / math.sqrt(4096)
    assert abs(float(found["z"].std()) - width) < 4 * width / math.sqrt(2 * 4096)


def test_it_says_that_a_tolerance_is_out_of_reach():
    schedule = al.get("schedule", "vp")()
    x, _ = start(schedule, SPEC.blank(2, dtype=torch.float64))
    times = torch.tensor([1.0, 0.0], dtype=torch.float64)
    with pytest.raises(RuntimeError, match="2 of 2 samples"):
        al.solve(al.get("solver", "dopri5")(), lambda x, t: x * math.nan, schedule, x, times)
    for name in ("dopri5", "adaptive_sde"):
        for tolerance in (0.0, -1.0, 1.0):
            with pytest.raises(ValueError, match="between 0 and 1"):
                al.get("solver", name)(tolerance=tolerance)


class Recaller(al.Denoiser):
    """Moves x0 a little by its last estimate, if it is told one."""

    self_conditioned = True

    def __init__(self, schedule):
        super().__init__()
        self.exact, self.schedule = al.testing.GaussianDenoiser(schedule, 0.5, 0.3), schedule

    def forward(self, x, t, cond=None):
        told = None if cond is None else cond.values.get("estimate")
        x0 = self.exact(x, t)
        return x0 if told is None else al.combine((0.7, x0), (0.3, told))


@pytest.mark.parametrize("name", ("dopri5", "adaptive_sde"))
def test_a_model_that_recalls_is_asked_without_its_estimates(name):
    """Repeated steps and finished neighbours would change what it recalls."""
    schedule, blank = al.get("schedule", "vp")(), al.testing.SPECS["image"].blank(3)
    recaller, times = Recaller(schedule), al.get("grid", "log_snr")()(schedule, 4)
    x = schedule.sigma(1.0) * al.Noise.of(0, 3).like(blank)
    solver = al.get("solver", name)()
    found = al.solve(solver, recaller.bind(None), schedule, x, times, al.Noise.of(1, 3))
    plain = al.solve(solver, recaller.exact, schedule, x, times, al.Noise.of(1, 3))
    assert distance(found, plain) < 1e-6
    heun = al.get("solver", "heun")()
    counted = Counted(recaller.bind(None), 3)
    again = al.solve(solver, counted, schedule, x, times, al.Noise.of(1, 3))
    assert distance(again, plain) == 0 and counted.calls > 4 and counted.evaluations.min() > 4
    told = al.solve(heun, recaller.bind(None), schedule, x, times)
    assert distance(told, al.solve(heun, recaller.exact, schedule, x, times)) > 1e-3
