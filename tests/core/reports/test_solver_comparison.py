"""Comparisons of solvers on exact Gaussians, where the ranking is known."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.registry.building import build
from anylatent.core.reports.solvers.comparison import (
    FLOW,
    LAW,
    PATH,
    Comparison,
    Contest,
    Solution,
    steps_within,
)
from anylatent.core.reports.solvers.report import _dear, recommendation
from anylatent.core.reports.solvers.samples import Probe, Samples
from anylatent.core.reports.solvers.settings import overrides, solvers_of
from anylatent.core.solvers import DDIM
from tests.test_configs import composed

SPEC = al.LatentSpec({"x": al.Field((None, 3), centred=True), "h": al.Field((None, 2))})
LENGTHS = [5, 2, 9, 1, 6, 4, 3, 7]


class Exact:
    """Samples a Gaussian of deviation .3 by its exact denoiser, in float64."""

    def __init__(self):
        self.schedule = al.get("schedule", "vp")()
        self.denoiser = al.testing.GaussianDenoiser(self.schedule, 0.5, 0.3)
        self.members = {"": self}

    def sample(self, blank, cond, sampler, noise, callback=None):
        times = sampler.grid(self.schedule, sampler.steps)
        start = self.schedule.sigma(1.0) * noise.like(blank)
        bound = self.denoiser.bind(cond)
        return al.solve(sampler.solver, bound, self.schedule, start, times, noise, callback)


def prepare(noise, part):
    lengths = torch.tensor(LENGTHS[part])
    return SPEC.blank(noise.batch, lengths, dtype=torch.float64), None


GRID = al.get("grid", "log_snr")(high=24.0)


def sampler(**settings):
    return Probe(Exact(), prepare, n=len(LENGTHS), **settings)


def contest(solvers, budgets, most, reference="dpmpp_3m", grids=None):
    """Of solvers by name, or as they are."""
    if isinstance(solvers, list):
        solvers = solvers_of(solvers)
    reference = al.get("solver", reference)()
    return Contest(solvers, grids or {"log_snr": GRID}, budgets, reference, GRID, most)


@pytest.fixture(scope="module")
def found():
    chosen = ["ddim", "heun", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "ddpm"]
    return contest(chosen, [6, 24, 96], 300).run(sampler())


def of(found, against):
    return [one for one in found.solutions if one.against == against]


# ---- what is measured ---------------------------------------------------------------------------
def test_errors_are_those_of_the_exact_flow(found):
    """The reference is no yardstick of its own: errors agree with the closed form."""
    solver, exact = DDIM(), Exact()
    blank, _ = prepare(al.Noise([(0, i) for i in range(8)]), slice(0, 8))
    start = exact.schedule.sigma(1.0) * al.Noise([(0, i) for i in range(8)]).like(blank)
    end = exact.denoiser.flow(start, 1.0, 0.0)
    got = al.solve(solver, exact.denoiser, exact.schedule, start, GRID(exact.schedule, 24))
    scale = (end.dot(end).sum() / end.dim.double().sum()).sqrt()
    wanted = (got.mse(end).sqrt() / scale).quantile(0.5, interpolation="higher")
    (mine,) = [one for one in of(found, FLOW) if (one.solver, one.steps) == ("ddim", 24)]
    assert mine.error == pytest.approx(float(wanted), rel=1e-3)
    assert mine.worst > mine.error
    assert mine.doubt < 1e-3


def test_the_better_solver_is_found_at_equal_cost(found):
    for budget in (24, 96):
        within = found.within(budget)
        assert set(within) == {"ddim", "heun", "dpmpp_2m", "dpmpp_3m"}
        errors = {name: one.error for name, one in within.items()}
        assert errors["dpmpp_3m"] < errors["dpmpp_2m"] < errors["ddim"]
        assert budget == 24 or errors["dpmpp_2m"] < errors["heun"] < errors["ddim"]
        assert found.recommended(budget).solver == "dpmpp_3m"
        assert all(one.evaluations <= budget for one in within.values())
        assert within["ddim"].evaluations == within["ddim"].rounds == budget


def test_errors_fall_at_the_orders_of_the_solvers(found):
    for name, order in (("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("dpmpp_3m", 3)):
        last = [one for one in of(found, FLOW) if one.solver == name][-2:]
        slope = math.log(last[0].error / last[1].error) / math.log(last[1].steps / last[0].steps)
        assert slope > order - 0.5, (name, slope)


def test_stochastic_solvers_are_held_against_themselves(found):
    errors = [one.error for one in of(found, PATH) if one.solver == "dpmpp_2m_sde"]
    assert len(errors) == 3 and errors[0] > 2 * errors[1] > 4 * errors[2]
    doubts = {one.doubt for one in of(found, PATH)}
    assert len(doubts) == 1 and 0 < doubts.pop() < 1.5 * errors[2], "its own fine solution's"
    assert not [one for one in of(found, FLOW) if one.solver in ("dpmpp_2m_sde", "ddpm")]


def test_noise_without_a_path_is_judged_by_its_law():
    class Shaken(DDIM):
        """Ends in x0 with noise of its own each time."""

        def step(self, denoise, x, step, memory, noise):
            return denoise(x, step.t) + 0.1 * noise.like(x), None

    result = contest({"shaken": [Shaken(eta=1.0)]}, [8], 64, "ddim").run(sampler())
    (one,) = result.solutions
    assert one.against == LAW and one.error == one.worst
    assert one.doubt > 0.05, "of eight samples"


def samples(rows, dims=None):
    rows = torch.as_tensor(rows, dtype=torch.float64)
    dims = torch.full((len(rows),), float(rows.shape[1])) if dims is None else torch.tensor(dims)
    return Samples(rows, dims.double(), 1.0, 1, False)


def test_padding_dilutes_no_error():
    wanted = samples([[1.0, 1, 1, 1], [1, 0, 0, 0]], [4.0, 1.0])
    moved = samples([[1.1, 1.1, 1.1, 1.1], [1.1, 0, 0, 0]], [4.0, 1.0])
    torch.testing.assert_close(moved.errors(wanted), torch.full((2,), 0.1).double())
    broken = samples([[math.nan] * 4, [1.0, 0, 0, 0]], [4.0, 1.0])
    assert broken.errors(wanted).tolist() == [math.inf, 0.0]


def test_energy_distance_of_shifted_normals():
    """In one dimension E|X - Y| is known for two normals, for equal ones 2/√π."""
    draws = al.Noise([0, 1]).normal(1500, 1)
    shift, root = 2.0, math.sqrt(math.pi)
    far = 2 / root * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    wanted = math.sqrt((2 * far - 4 / root) / far)
    x, y = samples(draws[0]), samples(draws[1] + shift)
    assert y.apart(x) == pytest.approx(wanted, rel=0.05)
    assert samples(draws[1]).apart(x) < 0.1
    assert samples([[0.5], [1.5]]).apart(samples([[0.0], [1.0]])) == 0, "twins do not count"
    few = [samples(al.Noise([k]).normal(60, 1)[0]) for k in range(40)]
    typical = math.sqrt(sum(a.apart(b) ** 2 for a, b in zip(few[::2], few[1::2], strict=True)) / 20)
    assert sum(one.floor() for one in few) / 40 == pytest.approx(typical, rel=0.35)
    twins = samples(draws[0] + shift)  # from one noise
    assert twins.apart(x) == pytest.approx(wanted, rel=0.05)


def test_samples_are_the_same_in_batches_of_any_size():
    for name in ("heun", "dpmpp_2m_sde"):
        solver = al.get("solver", name)()
        whole, parts = sampler()(solver, GRID, 5), sampler(batch=3)(solver, GRID, 5)
        torch.testing.assert_close(parts.rows, whole.rows, rtol=0, atol=1e-12)
        assert (parts.evaluations, parts.rounds) == (whole.evaluations, whole.rounds)
        assert whole.dims.tolist() == [max(1, 3 * (n - 1) + 2 * n) for n in LENGTHS]
    assert sampler(seed=1)(solver, GRID, 5).rows.ne(whole.rows).any()


# ---- cost ---------------------------------------------------------------------------------------
def test_a_budget_buys_the_most_steps():
    class Twice(DDIM):
        def cost(self, steps):
            return 2 * steps - 1

    assert [steps_within(Twice(), b) for b in (1, 2, 5, 10)] == [1, 1, 3, 5]
    assert [steps_within(DDIM(), b) for b in (1, 7)] == [1, 7]


def test_progress_is_told_of_each_step():
    """Its total is true whatever two budgets have in common, and whatever is left out."""
    grids = {"log_snr": GRID, "soft": al.get("grid", "soft")()}
    for chosen in (["heun", "dpmpp_2m_sde"], ["dopri5", "adaptive_sde"]):
        ticks = []
        race = contest(chosen, [3, 4, 8], 16, grids=grids)
        race.run(sampler(batch=5, advance=lambda t=ticks: t.append(1)))
        assert len(ticks) == 2 * race.steps


def test_what_a_solver_refuses_leaves_the_others():
    class Refuses(DDIM):
        def plan(self, schedule, times):
            raise ValueError("not on this process")

    class Dear(DDIM):
        def cost(self, steps):
            return 100 * steps

    chosen = {"refuses": [Refuses()], "dear": [Dear()], "ddim": [DDIM()]}
    ticks, race = [], contest(chosen, [4], 8, "ddim")
    result = race.run(sampler(advance=lambda: ticks.append(1)))
    assert len(ticks) == race.steps
    assert set(result.left_out) == {"refuses", "dear"}
    assert "not on this process" in result.left_out["refuses"]
    assert [one.solver for one in result.solutions] == ["ddim"]


def solution(solver, steps, evaluations, error, **more):
    how = {"grid": "soft", "tolerance": None, "against": FLOW, "worst": error, "doubt": 0.0}
    rounds = int(evaluations)
    values = {**how, **more}
    return Solution(
        solver, steps=steps, evaluations=evaluations, rounds=rounds, error=error, **values
    )


def test_a_solver_that_costs_what_it_likes_is_judged_by_what_it_did():
    row = [solution("adaptive", 5, 17.0, 0.01), solution("ddim", 10, 10.0, 0.2)]
    result = Comparison(row)
    assert result.recommended(10).solver == "ddim" and set(result.within(10)) == {"ddim"}
    assert result.recommended(20).solver == "adaptive"
    assert result.recommended(5) is None
    assert ["adaptive took 17 evaluations" in line for line in _dear(result, 10)] == [True]
    assert not _dear(result, 20)


def test_a_recommendation_says_when_it_is_in_doubt():
    for doubt in (0.01, 0.15):
        row = [solution("ddim", 10, 10.0, 0.2, doubt=doubt)]
        text = recommendation(Comparison(row), [10, 20])
        assert text.count("solver=ddim grid=soft steps=10 (error 0.2)") == 2
        assert ("raise reference=" in text) == (doubt > 0.1)


# ---- grids and tolerances -----------------------------------------------------------------------
def test_every_grid_is_judged_by_the_same_fine_solution():
    """Each pair of solver and grid has the errors that it has alone; fine solutions are one."""
    grids = {"log_snr": GRID, "uniform": al.get("grid", "uniform")()}
    calls, sample = [], sampler()

    class Noted:
        reach = sample.reach

        def __call__(self, solver, grid, steps):
            calls.append(steps)
            return sample(solver, grid, steps)

    chosen = ["ddim", "dpmpp_2m", "dpmpp_2m_sde"]
    both = contest(chosen, [6, 16], 40, grids=grids).run(Noted())
    assert [n for n in calls if n > 20] == [40, 40], "the flow's and the one path's"
    assert set(both.lines(FLOW)) == {f"{s}, {g}" for s in ("ddim", "dpmpp_2m") for g in grids}
    for name, grid in grids.items():
        alone = contest(chosen, [6, 16], 40, grids={name: grid}).run(sampler())
        assert set(alone.lines(FLOW)) == {"ddim", "dpmpp_2m"}, "one grid is not named"
        assert alone.solutions == [one for one in both.solutions if one.grid == name]
    fine = sampler()(al.get("solver", "dpmpp_3m")(), GRID, 40)
    for name, grid in grids.items():
        (one,) = [s for s in both.lines(FLOW)[f"ddim, {name}"] if s.steps == 16]
        wanted = sampler()(DDIM(), grid, 16).errors(fine).quantile(0.5, interpolation="higher")
        assert one.error == float(wanted)
    best = both.recommended(16)
    assert (best.solver, best.grid) == ("dpmpp_2m", "log_snr")
    assert "solver=dpmpp_2m grid=log_snr steps=16" in recommendation(both, [16])


def test_a_grid_that_fails_leaves_the_others():
    class Broken(type(GRID)):
        def __call__(self, schedule, steps):
            raise ValueError("no such times")

    grids = {"broken": Broken(), "log_snr": GRID}
    result = contest(["ddim", "dopri5"], [8, 40], 80, grids=grids).run(sampler())
    assert result.left_out == {"ddim, broken": "no such times"}
    assert set(result.lines(FLOW)) == {"ddim, log_snr", "dopri5"}


def test_solvers_with_steps_of_their_own_stand_at_each_budget():
    """By their tolerance, on no grid: errors fall and costs rise, up to the first above all."""
    grids = {"log_snr": GRID, "soft": al.get("grid", "soft")()}
    result = contest(["dopri5", "adaptive_sde"], [30, 60], 200, grids=grids).run(sampler())
    for name, against in (("dopri5", FLOW), ("adaptive_sde", PATH)):
        line = result.lines(against)[name]
        tolerances = [one.tolerance for one in line]
        assert tolerances == sorted(tolerances, reverse=True) and tolerances[0] == 0.3
        assert {one.grid for one in line} == {None} and {one.steps for one in line} == {1}
        costs = [one.evaluations for one in line]
        assert costs == sorted(costs) and costs[-2] <= 60 < costs[-1] < 150
        assert line[0].error > 3 * line[-1].error
        assert name in result.within(30, against) and name in result.within(60, against)
    best = result.recommended(60)
    words = overrides(best)
    assert words == f"solver=dopri5 solver.tolerance={best.tolerance:g} steps=1"


def test_a_tolerance_that_is_given_is_kept():
    (name, variants), *rest = solvers_of([{"name": "dopri5", "tolerance": 1e-3}]).items()
    assert name == "dopri5 tolerance=0.001" and not rest
    assert [one.tolerance for one in variants] == [1e-3]
    told = solution(name, 1, 40.0, 0.1, grid=None, tolerance=1e-3)
    assert overrides(told) == "solver=dopri5 solver.tolerance=0.001 steps=1"


def test_what_is_recommended_is_told_as_on_the_command_line():
    node = {"name": "predictor_corrector", "rate": 0.5, "base": {"name": "ddim", "eta": 0.5}}
    plain = {"name": "ddim", "eta": 0.0}
    labels = list(solvers_of([node, plain]))
    assert labels == ["predictor_corrector rate=0.5 solver@base=ddim base.eta=0.5", "ddim"]
    words = overrides(solution(labels[0], 7, 14.0, 0.1, grid="soft low=-4.0")).split(" ")
    assert words == [
        "solver=predictor_corrector",
        "solver.rate=0.5",
        "solver@solver.base=ddim",
        "solver.base.eta=0.5",
        "grid=soft",
        "grid.low=-4.0",
        "steps=7",
    ]
    config = composed("sample", "run=nowhere", *words)
    assert config["solver"]["base"] == {"name": "ddim", "eta": 0.5}
    assert build("solver", config["solver"]).rate == 0.5
