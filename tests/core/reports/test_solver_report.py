"""Comparisons of solvers on tiny runs, from the command line."""

import itertools
import json

import pytest
import torch

import anylatent as al
from anylatent.core.cli.main import main
from anylatent.core.registry.building import build
from anylatent.core.reports.solvers.report import FINE
from anylatent.core.runs import RunDirectory, Stages
from anylatent.core.runs.system import System
from tests.core.toys import gaussian, start
from tests.test_configs import train_config

IMAGE = ["data=mnist", "data.size=16", "conditioner=label", "autoencoder.channels=8"]
IMAGE += ["autoencoder.blocks=1", "autoencoder.heads=1", "backbone.channels=8", "backbone.blocks=1"]
IMAGE += ["backbone.heads=1", "backbone.embedding=16", "backbone.multipliers=[1]"]
IMAGE += ["backbone.attention=[]"]
MOLECULE = ["modality=molecule", "data.limit=200", "autoencoder.width=16", "autoencoder.edge=8"]
MOLECULE += ["backbone.width=16", "backbone.edge=8", "backbone.depth=1"]
TEXT = ["modality=text", "data=text_file", "generator=autoregressive", "generator.width=16"]
TEXT += ["generator.depth=1", "generator.heads=2"]


def untrained(path, overrides):
    """A run that has learned nothing: as whole as any, without the time."""
    config = train_config(*overrides)
    facts = build("data", config.data).facts
    with torch.random.fork_rng():
        torch.manual_seed(0)
        system = System(config.model, facts)
        for parameter in system.generator.parameters():  # zeros would make every solver exact
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    RunDirectory(path).claim(config.described(facts, ("classifier",)))
    RunDirectory(path).save(system.trained(), Stages(("autoencoder", "diffusion"), ready=True))
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
    assert f"6 evaluations: {report['recommended']['6']} (error" in out
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
        code, _, err = command(capsys, f"run={image}", *few, *how, "grids=uniform", f"out={out}")
        assert code == 0, err
        found[name] = json.loads((out / "solvers.json").read_text())
    assert found["plain"]["guidance"]["name"] == "none"
    assert found["guided"]["guidance"]["scale"] == 4
    assert found["plain"]["grids"] == ["uniform"]
    code, _, err = command(capsys, f"run={image}", *few, f"out={tmp_path}")
    assert code == 0, err
    own = RunDirectory(image).config().sampling.grid["name"]
    assert json.loads((tmp_path / "solvers.json").read_text())["grids"] == [own]
    errors = [[one["error"] for one in report["solutions"]] for report in found.values()]
    assert errors[0] != errors[1]


@pytest.mark.parametrize("name", ("flow", "cosine"))
def test_fine_solutions_are_as_near_as_they_say(name):
    """Halving the steps tells nothing of the ends of a grid, so these must count nothing."""
    schedule = al.get("schedule", name)()
    blank = al.LatentSpec({"z": al.Field((12,))}).blank(8, dtype=torch.float64)
    exact, mean, _ = gaussian(schedule, blank)
    x, _ = start(schedule, blank, 0 * mean)  # samplers know no mean
    wanted = exact.flow(x, 1.0, 0.0)
    solver, off = al.get("solver", "dpmpp_3m")(), {}
    for grid, width in ((FINE, "far"), (al.get("grid", "log_snr")(), "near")):
        fine, half = (al.solve(solver, exact, schedule, x, grid(schedule, n)) for n in (200, 100))
        off[width] = float((fine - wanted).norm().mean()), float((fine - half).norm().mean())
    assert off["far"][0] < off["far"][1], "it says how far it is off at most"
    assert off["near"][0] > 2 * off["near"][1], "and a grid of nearer ends does not"
    assert off["far"][0] < 0.2 * off["near"][0]


def test_nothing_is_recommended_of_nothing(image, tmp_path, capsys):
    few = ["solvers=ddpm", "evaluations=[3]", "reference=8", "n=4", f"out={tmp_path}"]
    code, out, err = command(capsys, f"run={image}", *few)
    assert code == 0 and "nothing to recommend" in out, err


def test_grids_are_compared_from_the_command_line(image, tmp_path, capsys):
    few = ["solvers=[ddim,dopri5,dpmpp_2m_sde]", "evaluations=[3,32]", "reference=64", "n=4"]
    few += ["grids=[soft,{name:karras,rho:5}]", "guidance=none", f"out={tmp_path}"]
    code, out, err = command(capsys, f"run={image}", *few)
    assert code == 0, err
    report, text = (tmp_path / "solvers.json").read_text(), (tmp_path / "solvers.md").read_text()
    report = json.loads(report)
    assert report["grids"] == ["soft", "karras rho=5"] and not report["left_out"]
    assert {(one["solver"], one["grid"]) for one in report["solutions"]} == {
        *itertools.product(["ddim", "dpmpp_2m_sde"], report["grids"]),
        ("dopri5", None),
    }
    for label in ("ddim, soft", "ddim, karras rho=5", "dopri5 ", "dpmpp_2m_sde, soft"):
        assert f"| {label}" in text, label
    best = report["recommended"]["3"]
    assert best in text and best.startswith("solver=ddim grid=") and best.endswith("steps=3")
    # as it is recommended, so it is sampled
    arguments = [f"run={image}", "n=2", f"out={tmp_path / 'samples'}", "guidance=none"]
    main(["sample", *arguments, *best.split(" ")])


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
    "grids=[karas]": "no grid 'karas'",
    "grids=3": "names of grids",
    "solver=ddpm": "draws noise",
    "steps=20": "evaluations",
    "grid=karras": "grids",
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
    (tmp_path / "lines.txt").write_text("\n".join(f"line {n} of a text" for n in range(40)))
    run = untrained(tmp_path / "text", [*TEXT, f"data.path={tmp_path / 'lines.txt'}"])
    code, _, err = command(capsys, f"run={run}", *FEW)
    assert code == 1 and "autoregressive" in err and "no solver to compare" in err
