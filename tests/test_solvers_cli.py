"""Every solver from the command line, on a model that has learned a variance."""

import pytest
from PIL import Image

import anylatent as al
from anylatent.core.cli.main import main
from tests.cli import TINY, steps

SETTINGS = (
    "solver=ddpm solver.variance=learned",
    "solver=ddpm solver.variance=learned guidance=classifier_free guidance.scale=2 cond.digit=3",
    "solver=ddpm solver.variance=large",
    "solver=dpm_solver solver.order=2",
    "solver=dpmpp_2s solver.eta=0.5",
    "solver=predictor_corrector solver.base=heun solver.corrections=2",
    "solver=paradigms solver.base=ddpm solver.window=3 solver.tolerance=0.01",
    "solver=dopri5 solver.tolerance=0.01",
    "solver=adaptive_sde solver.tolerance=0.1",
)


@pytest.fixture(scope="module")
def run(trained_once):
    learned = ["denoiser=learned_variance", "objective=hybrid"]
    return trained_once("learned_variance", [*TINY, *steps(2, 3), *learned])


@pytest.mark.parametrize("settings", [f"solver={name}" for name in al.names("solver")])
def test_every_solver(run, settings, tmp_path):
    main(["sample", f"run={run}", f"out={tmp_path}", "n=2", "steps=3", *settings.split()])
    assert len([Image.open(path) for path in tmp_path.rglob("*.png")]) >= 2


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings(run, settings, tmp_path):
    main(["sample", f"run={run}", f"out={tmp_path}", "n=2", "steps=4", *settings.split()])
    assert len([Image.open(path) for path in tmp_path.rglob("*.png")]) >= 2
