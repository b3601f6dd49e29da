"""Comparisons of solvers: on exact Gaussians, where the ranking is known, and on tiny runs."""

import json
import math

import pytest
import torch

import anylatent as al
from anylatent.core.cli.main import main
from anylatent.core.registry import build
from anylatent.core.run import RunDirectory
from anylatent.core.solver_comparison import (
    FLOW,
    LAW,
    PATH,
    Comparison,
    Solution,
    compare,
    planned_steps,
    steps_within,
)
from anylatent.core.solver_report import _dear, recommendation
from anylatent.core.solver_samples import Sampler, Samples
from anylatent.core.solvers import DDIM
from anylatent.core.system import System
from tests.test_configs import composed

SPEC = al.LatentSpec({"x": al.Field((None, 3), centred=True), "h": al.Field((None, 2))})
LENGTHS = [5, 2, 9, 1, 6, 4, 3, 7]


class Exact:
    """Samples a Gaussian of deviation .3 by its exact denoiser, in float64."""

    def __init__(self):
        self.schedule = al.get("schedule", "vp")()
        self.denoiser = al.testing.GaussianDenoiser(self.schedule, 0.5, 0.3)

    def sample(self, blank, cond, solver, grid, steps, guidance, noise, callback=None):
        times = grid(self.schedule, steps)
        start = self.schedule.sigma(1.0) * noise.like(blank)
        bound = self.denoiser.bind(cond)
        return al.solve(solver, bound, self.schedule, start, times, noise, callback)


def prepare(noise, part):
    lengths = torch.tensor(LENGTHS[part])
    return SPEC.blank(noise.batch, lengths, dtype=torch.float64), None


def sampler(**settings):
    grid = al.get("grid", "log_snr")(high=24.0)
    return Sampler(Exact(), prepare, grid, n=len(LENGTHS), **settings)


def solvers(*names):
    return {name: al.get("solver", name)() for name in names}


@pytest.fixture(scope="module")
def found():
    chosen = solvers("ddim", "heun", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "ddpm")
    return compare(sampler(), chosen, [6, 24, 96], chosen["dpmpp_3m"], 300)


# ---- what is measured ---------------------------------------------------------------------------
def test_errors_are_those_of_the_exact_flow(found):
    """The reference is no yardstick of its own: errors agree with the closed form."""
    sample, solver, exact = sampler(), DDIM(), Exact()
    blank, _ = prepare(al.Noise([(0, i) for i in range(8)]), slice(0, 8))
    start = exact.schedule.sigma(1.0) * al.Noise([(0, i) for i in range(8)]).like(blank)
    end = exact.denoiser.flow(start, 1.0, 0.0)
    got = al.solve(solver, exact.denoiser, exact.schedule, start, sample.grid(exact.schedule, 24))
    scale = (end.dot(end).sum() / end.dim.double().sum()).sqrt()
    wanted = (got.mse(end).sqrt() / scale).quantile(0.5, interpolation="higher")
    (mine,) = [one for one in found.of(FLOW) if (one.solver, one.steps) == ("ddim", 24)]
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
        last = [one for one in found.of(FLOW) if one.solver == name][-2:]
        slope = math.log(last[0].error / last[1].error) / math.log(last[1].steps / last[0].steps)
        assert slope > order - 0.5, (name, slope)


def test_stochastic_solvers_are_held_against_themselves(found):
    errors = [one.error for one in found.of(PATH) if one.solver == "dpmpp_2m_sde"]
    assert len(errors) == 3 and errors[0] > 2 * errors[1] > 4 * errors[2]
    doubts = {one.doubt for one in found.of(PATH)}
    assert len(doubts) == 1 and 0 < doubts.pop() < 1.5 * errors[2], "its own fine solution's"
    assert not [one for one in found.of(FLOW) if one.solver in ("dpmpp_2m_sde", "ddpm")]


def test_noise_without_a_path_is_judged_by_its_law():
    class Shaken(DDIM):
        """Ends in x0 with noise of its own each time."""

        def step(self, denoise, x, step, memory, noise):
            return denoise(x, step.t) + 0.1 * noise.like(x), None

    result = compare(sampler(), {"shaken": Shaken(eta=1.0)}, [8], DDIM(), 64)
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
        whole, parts = sampler()(solver, 5), sampler(batch=3)(solver, 5)
        torch.testing.assert_close(parts.rows, whole.rows, rtol=0, atol=1e-12)
        assert (parts.evaluations, parts.rounds) == (whole.evaluations, whole.rounds)
        assert whole.dims.tolist() == [max(1, 3 * (n - 1) + 2 * n) for n in LENGTHS]
    assert sampler(seed=1)(solver, 5).rows.ne(whole.rows).any()


# ---- cost ---------------------------------------------------------------------------------------
def test_a_budget_buys_the_most_steps():
    class Twice(DDIM):
        def cost(self, steps):
            return 2 * steps - 1

    assert [steps_within(Twice(), b) for b in (1, 2, 5, 10)] == [1, 1, 3, 5]
    assert [steps_within(DDIM(), b) for b in (1, 7)] == [1, 7]


def test_progress_is_told_of_each_step():
    ticks, chosen = [], solvers("ddim", "dpmpp_2m_sde")
    compare(sampler(advance=lambda: ticks.append(1)), chosen, [3, 5], chosen["ddim"], 20)
    assert len(ticks) == planned_steps(chosen, [3, 5], chosen["ddim"], 20)


def test_what_a_solver_refuses_leaves_the_others():
    class Refuses(DDIM):
        def plan(self, schedule, times):
            raise ValueError("not on this process")

    class Dear(DDIM):
        def cost(self, steps):
            return 100 * steps

    chosen = {"refuses": Refuses(), "dear": Dear(), "ddim": DDIM()}
    result = compare(sampler(), chosen, [4], DDIM(), 8)
    assert set(result.left_out) == {"refuses", "dear"}
    assert "not on this process" in result.left_out["refuses"]
    assert [one.solver for one in result.solutions] == ["ddim"]


def test_a_solver_that_costs_what_it_likes_is_judged_by_what_it_did():
    row = [Solution("adaptive", 5, 17.0, 17, FLOW, 0.01, 0.1, 0.0)]
    row += [Solution("ddim", 10, 10.0, 10, FLOW, 0.2, 0.3, 0.0)]
    result = Comparison(row)
    assert result.recommended(10).solver == "ddim" and set(result.within(10)) == {"ddim"}
    assert result.recommended(20).solver == "adaptive"
    assert result.recommended(5) is None
    assert ["adaptive took 17 evaluations" in line for line in _dear(result, 10)] == [True]
    assert not _dear(result, 20)


def test_a_recommendation_says_when_it_is_in_doubt():
    for doubt in (0.01, 0.15):
        row = [Solution("ddim", 10, 10.0, 10, FLOW, 0.2, 0.3, doubt)]
        text = recommendation(Comparison(row), [10, 20], "soft")
        assert text.count("solver=ddim steps=10 (error 0.2)") == 2
        assert ("raise reference=" in text) == (doubt > 0.1)


# ---- runs ---------------------------------------------------------------------------------------
IMAGE = ["data=mnist", "data.size=16", "conditioner=label", "autoencoder.channels=8"]
IMAGE += ["autoencoder.blocks=1", "autoencoder.heads=1", "backbone.channels=8", "backbone.blocks=1"]
IMAGE += ["backbone.heads=1", "backbone.embedding=16", "backbone.multipliers=[1]"]
IMAGE += ["backbone.attention=[]"]
MOLECULE = ["modality=molecule", "data.limit=200", "autoencoder.width=16", "autoencoder.edge=8"]
MOLECULE += ["backbone.width=16", "backbone.edge=8", "backbone.depth=1"]
TEXT = ["modality=text", "data=smiles", "generator=autoregressive", "generator.width=16"]
TEXT += ["generator.depth=1", "generator.heads=2"]


def untrained(path, overrides):
    """A run that has learned nothing: as whole as any, without the time."""
    config = composed("train", *overrides)
    facts = build("data", config["data"]).facts
    with torch.random.fork_rng():
        torch.manual_seed(0)
        system = System(config, facts)
        for parameter in system.generator.parameters():  # zeros would make every solver exact
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    RunDirectory(path).claim(config, facts)
    RunDirectory(path).save(system.trained(), "diffusion")
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("image") / "run", IMAGE)


def command(capsys, *arguments):
    code = 0
    try:
        main(["benchmark", "solvers", *map(str, arguments)])
    except SystemExit as stopped:
        code = stopped.code
    return code, *capsys.readouterr()


FEW = ["solvers=[heun,ddim,{name:ddim,eta:0.5},dpmpp_2m_sde]", "evaluations=[3,6]"]
FEW += ["reference=16", "n=5"]


@pytest.mark.parametrize("overrides", [IMAGE, MOLECULE], ids=["image", "molecule"])
def test_a_run_is_benchmarked_from_the_command_line(overrides, tmp_path, capsys):
    run = untrained(tmp_path / "run", overrides)
    code, out, err = command(capsys, f"run={run}", *FEW, "batch=2")
    assert code == 0, err
    report = json.loads((run / "solvers.json").read_text())
    found = report["solutions"]
    assert {one["solver"] for one in found} == {"heun", "ddim", "ddim eta=0.5", "dpmpp_2m_sde"}
    assert all(0 <= one["error"] and one["evaluations"] <= 6 for one in found)
    assert all(one["error"] < 1 for one in found if one["solver"] == "ddim")
    assert set(report["recommended"]) == {"3", "6"} and not report["left_out"]
    assert f"solver={report['recommended']['6']} steps=" in out
    text = (run / "solvers.md").read_text()
    assert "| ddim " in text and "Brownian path" in text and "recommended" in text
    assert (run / "solvers.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(run.glob(".*")), "no temporary file is left"


def test_errors_are_about_the_noise_not_the_batch(image, tmp_path, capsys):
    reports, few = [], ["solvers=[heun,dpmpp_2m_sde]", "evaluations=[3]", "reference=8", "n=5"]
    for batch in (2, 5):
        out = tmp_path / str(batch)
        assert command(capsys, f"run={image}", *few, f"batch={batch}", f"out={out}")[0] == 0
        reports.append(json.loads((out / "solvers.json").read_text())["solutions"])
    for one, other in zip(*reports, strict=True):
        assert one["error"] == pytest.approx(other["error"], rel=1e-3)
    assert not (image / "solvers.json").exists(), "written where it was asked for"


def test_guidance_and_grid_are_taken_as_given(image, tmp_path, capsys):
    found = {}
    few = ["solvers=ddim", *FEW[1:]]
    for name, how in {"plain": ["guidance=none"], "guided": ["guidance.scale=4"]}.items():
        out = tmp_path / name
        code, _, err = command(capsys, f"run={image}", *few, *how, "grid=uniform", f"out={out}")
        assert code == 0, err
        found[name] = json.loads((out / "solvers.json").read_text())
    assert found["plain"]["guidance"]["name"] == "none"
    assert found["guided"]["guidance"]["scale"] == 4
    assert found["plain"]["grid"]["name"] == "uniform"
    errors = [[one["error"] for one in report["solutions"]] for report in found.values()]
    assert errors[0] != errors[1]


WRONG = {
    "evaluations=[0,5]": "whole numbers above 0",
    "evaluations=[]": "whole numbers above 0",
    "evaluations=[fast]": "whole numbers above 0",
    "reference=9": "at least twice the 6",
    "n=3": "at least four samples",
    "batch=0": "at least one sample",
    "solvers=[huen]": "no solver 'huen'",
    "solvers=[{name:ddim,eat:1}]": "its settings are eta",
    "solvers=3": "names of solvers",
    "solver=ddpm": "draws noise",
    "steps=20": "evaluations",
    "grid=karas": "karras",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_is_one_message(image, wrong, tmp_path, capsys):
    key = wrong.partition("=")[0]
    right = [item for item in FEW if not item.startswith(f"{key}=")]
    code, _, err = command(capsys, f"run={image}", *right, wrong, f"out={tmp_path / 'out'}")
    assert code == 1 and err.startswith("anylatent: ") and "Traceback" not in err
    assert WRONG[wrong] in err, err
    assert not (tmp_path / "out").exists(), "what can't be measured leaves nothing"


def test_it_needs_a_run_with_a_solver(tmp_path, capsys):
    assert "run must be set" in command(capsys)[2]
    assert "no run at" in command(capsys, f"run={tmp_path / 'nowhere'}")[2]
    run = untrained(tmp_path / "text", TEXT)
    code, _, err = command(capsys, f"run={run}", *FEW)
    assert code == 1 and "autoregressive" in err and "no solver to compare" in err
