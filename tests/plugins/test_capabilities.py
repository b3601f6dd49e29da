"""A plugin adds a stage of training, a command, or a figure, in one file of its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.cli import rows
from tests.forks import forks

HERE = Path(__file__).parent / "capabilities"


def anylatent(folder, *arguments, code=None):
    return forks("two_probes,describe,brightness", HERE)(folder, *arguments, code=code)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("capabilities")
    shutil.copytree(digits, folder / "run")
    return folder


PROBES = ["train", "run=run", "stage=two_probes", "trainer.accelerator=cpu", "log_every=1"]
PROBES += ["training.two_probes.batch=16", "training.two_probes.warmup=0"]
PROBES += ["training.two_probes.optimizer.lr=0.03", "pictures.every=0"]


@pytest.fixture(scope="module")
def probed(trained):
    """The weights of the run before its probes were trained."""
    before = load_file(trained / "run" / "model.safetensors")
    done = anylatent(trained, *PROBES, "training.two_probes.steps=60")
    assert done.returncode == 0, done.stderr
    return before


def test_a_stage_with_two_networks_and_two_optimisers(trained, probed):
    """It learns what latents tell, keeps its networks, and leaves the run's own weights alone."""
    told = rows(trained / "run" / "logs" / "two_probes.csv")
    first, last = (
        [float(row[name]) for name in ("latents", "noise")] for row in (told[0], told[-1])
    )
    assert last[0] < 0.8 * first[0], "the latents tell the digit"
    assert last[1] > 0.8 * first[1], "noise tells nothing"
    kept = torch.load(trained / "run" / "probes" / "latents.pt", weights_only=True)
    assert kept["weight"].shape[0] == 10
    after = load_file(trained / "run" / "model.safetensors")
    assert all(torch.equal(probed[name], after[name]) for name in probed)
    assert not (trained / "run" / "checkpoints" / "two_probes.ckpt").exists()


def test_a_stage_that_is_stopped_goes_on_with_its_own_networks(trained, probed):
    """60 steps, or 20 and 40: the same weights, of both networks and their averages."""
    shown = trained / "run" / "probes" / "noise.pt"
    whole = torch.load(shown, weights_only=True)
    code = (
        "import sys\n"
        "from anylatent.core.training import callbacks\n"
        "old = callbacks.Stop.after_step\n"
        "def after(self, trainer, module):\n"
        "    self.asked = self.asked or module.number == 20\n"
        "    old(self, trainer, module)\n"
        "callbacks.Stop.after_step = after\n"
        "from anylatent.core.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    done = anylatent(trained, *PROBES, "training.two_probes.steps=60", code=code)
    assert done.returncode == 1 and "stopped at two_probes step 20 of 60" in done.stderr
    assert (trained / "run" / "checkpoints" / "two_probes.ckpt").exists()
    shown.unlink()
    done = anylatent(trained, *PROBES, "training.two_probes.steps=60")
    assert done.returncode == 0, done.stderr
    again = torch.load(shown, weights_only=True)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_command_is_told_what_its_dataclass_says(trained):
    done = anylatent(trained, "describe", "run=run", "ages=[1,2,3]", "wide=yes")
    assert (done.returncode, done.stdout.strip()) == (0, "unet, ddpm, 6, True"), done.stderr
    assert "euler" in anylatent(trained, "describe", "run=run", "solver=euler").stdout
    wrong = anylatent(trained, "describe", "run=run", "wide=perhaps")
    assert wrong.returncode == 1 and "wide=perhaps" in wrong.stderr
    wrong = anylatent(trained, "describe", "run=run", "wdie=no")
    assert wrong.returncode == 1 and "Did you mean wide?" in wrong.stderr
    assert "describe" in anylatent(trained, "list", "command").stdout
    unknown = anylatent(trained, "descrbe")
    assert "unknown command" in unknown.stderr and "describe" in unknown.stderr


def measured(folder, command, *arguments):
    """The figures of a run, and what was printed."""
    done = anylatent(folder, command, "run=run", "n=4", "steps=2", "out=out", *arguments)
    assert done.returncode == 0, done.stderr
    name = {"evaluate": "evaluation"}.get(command, command)
    return json.loads((folder / "out" / f"{name}.json").read_text()), done.stdout


def test_a_figure_is_one_of_the_table(trained):
    """Of samples it is the mean of the very pictures that `sample` draws."""
    found, _ = measured(trained, "evaluate", "metrics=[brightness]")
    (value,) = found["samples"]["samples"].values()
    assert list(found["samples"]["samples"]) == ["brightness"]
    assert set(found["reconstruction"]["mean"]) == {"brightness_off"}
    drawn = ["sample", "run=run", "n=4", "steps=2", "seed=0", "out=drawn", "cond.digit=[0,0,0,0]"]
    assert anylatent(trained, *drawn).returncode == 0
    files = sorted((trained / "drawn").glob("0_*.png"))
    means = [torch.tensor(list(Image.open(p).getdata())).float().mean() / 127.5 for p in files]
    assert value == pytest.approx(float(sum(means)) / 4 - 1, abs=0.01)  # rounded to 8 bits, cut


@pytest.mark.slow
def test_figures_from_outside_stand_behind_those_of_the_modality(trained):
    chosen = "metrics=[{name: brightness, scale: 2}, pictures_restored]"
    found, printed = measured(trained, "benchmark", chosen, "likelihood=0")
    assert list(found["reconstruction"]["mean"]) == ["psnr", "ssim", "perceptual", "brightness_off"]
    assert set(found["samples"]) == {"samples", "held-out", "untrained"}
    assert -2 < found["samples"]["held-out"]["brightness"] < -1  # digits are mostly black
    assert "from -1 to 1, times 2." in printed
    assert "brightness" in anylatent(trained, "list", "metric").stdout


def test_figures_that_there_are_not(trained):
    for wrong in ("metrics=[ngrams]", "metrics=ngrams", "metrics=[{name: ngrams}]"):
        done = anylatent(trained, "evaluate", "run=run", "n=2", "steps=1", wrong)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "ngrams" in done.stderr and "choose among brightness, frechet" in done.stderr
    done = anylatent(trained, "evaluate", "run=run", "metrics=[{name: brightness, colour: 1}]")
    assert done.returncode == 1 and "no setting colour" in done.stderr
