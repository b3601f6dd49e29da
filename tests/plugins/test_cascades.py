"""A cascade from the command line: the three-level latent of an outside plugin, whose law is known.

`tests/plugins/cascades/three_levels` says what it is.
"""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli import finish, start
from tests.forks import forks

HERE = Path(__file__).parent / "cascades"
EXACT = {"mean": 0.5, "slope_middle": 0.9, "slope_bottom": -0.7}
RESTS = {"rest_middle": 0.3, "rest_bottom": 0.4}
QUICK = ["modality=levels", "trainer.accelerator=cpu", "pictures.every=0", "log_every=1"]
QUICK += ["training.diffusion.warmup=20", "training.diffusion.optimizer.lr=3e-3"]
BRIEF = [*QUICK, "training.diffusion.batch=16", "data.train_size=64", "data.held_out_size=16"]


def anylatent(folder, *arguments, code=None):
    return forks("three_levels", HERE)(folder, *arguments, code=code)


def fine(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(done):
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr
    return " ".join(done.stderr.split())


def stopped(folder, stage, number, *arguments):
    """The command, stopped at a step of a stage as by Ctrl-C."""
    code = (
        "import sys\n"
        "from anylatent.core.training import callbacks\n"
        "old = callbacks.Stop.after_step\n"
        "def after(self, trainer, module):\n"
        f"    at = (module.stage.label, module.number) == ({stage!r}, {number})\n"
        "    self.asked = self.asked or at\n"
        "    old(self, trainer, module)\n"
        "callbacks.Stop.after_step = after\n"
        "from anylatent.core.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    return refused(anylatent(folder, *arguments, code=code))


def counted(folder, module, *arguments):
    """The command, which prints how many steps a module's progress bar saw, of how many."""
    code = (
        "import contextlib, sys\n"
        f"import anylatent.core.{module} as place\n"
        "@contextlib.contextmanager\n"
        "def bar(what, total):\n"
        "    calls = []\n"
        "    yield lambda: calls.append(1)\n"
        "    print(what, len(calls), 'of', total)\n"
        "place.bar = bar\n"
        "from anylatent.core.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    return fine(anylatent(folder, *arguments, code=code))


def weights(folder, run):
    return load_file(folder / run / "model.safetensors")


def rows(folder, pattern):
    paths = sorted(folder.glob(pattern))
    return torch.tensor([[float(v) for v in path.read_text().split()] for path in paths])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascades")
    steps = ["training.diffusion.steps=500", "training.diffusion.batch=256"]
    fine(anylatent(folder, "train", "run=run", *QUICK, *steps))
    return folder


# ---- what it learns, and every command --------------------------------------------------------
def test_it_learns_the_law(trained):
    """Each level given the one before it: slopes and what is left, beside those of the law."""
    fine(anylatent(trained, "evaluate", "run=run", "n=2000", "steps=16", "guidance=none"))
    found = json.loads((trained / "run" / "evaluation.json").read_text())["samples"]["samples"]
    for name, exact in {**EXACT, **RESTS}.items():
        assert found[name] == pytest.approx(exact, abs=0.12), (name, found)


def test_sampling_counts_all_stages(trained):
    """Guided, for each class; a sample is the same alone."""
    how = ["sample", "run=run", "steps=4", "guidance.scale=3", "grid=warped"]
    out = counted(trained, "runs.samples", *how, "n=3", "each=sign", "out=each")
    assert "sampling 12 of 12" in out
    both = rows(trained / "each", "*.txt")
    assert both.shape == (6, 14) and bool((both[:3, :2].mean() < both[3:, :2].mean()).all())
    fine(anylatent(trained, *how, "n=1", "cond.sign=minus", "out=one"))
    assert torch.allclose(rows(trained / "one", "*.txt"), both[:1], atol=1e-4)


def test_inversion_and_back(trained):
    out = counted(trained, "reports.inversion", "invert", "run=run", "n=4", "steps=50")
    assert "inverting 297 of 297" in out  # 50 up and back for each stage, but the one to sigma = 0
    told = json.loads((trained / "run" / "inversion" / "inversion.json").read_text())
    assert told["data against the originals"]["inverted and restored"]["error"] < 0.02
    noise = "noise=run/inversion/noise.safetensors"
    fine(anylatent(trained, "sample", "run=run", noise, "out=back"))
    originals = rows(trained / "run" / "inversion" / "originals", "*.txt")
    assert float((rows(trained / "back", "*.txt") - originals).abs().max()) < 0.05


def test_benchmark_and_likelihood(trained):
    likelihood = ["likelihood=flow", "likelihood.samples=64", "likelihood.steps=10"]
    fine(anylatent(trained, "benchmark", "run=run", "n=200", "steps=8", *likelihood))
    found = json.loads((trained / "run" / "benchmark.json").read_text())
    samples, other = found["samples"], found["other"]
    assert set(samples) == {"samples", "held out", "untrained"}
    assert abs(samples["untrained"]["slope_bottom"] + 0.7) > 0.3
    assert other["latent_nll_nats"] == pytest.approx(exact_nats(), abs=3)


def exact_nats():
    """The entropy of the normalised latents given sign: of what is new in each level, over the
    deviation that it has in all; 10.15."""
    top = 0.25 + 0.64
    middle = 0.81 * top + 0.09
    bottom = 0.49 * middle + 0.16
    new = ((2, 0.64, top), (4, 0.09, middle), (8, 0.16, bottom))
    return sum(n * 0.5 * (1 + math.log(2 * math.pi * own / whole)) for n, own, whole in new)


def test_solvers_are_compared_at_equal_evaluations_of_each_stage(trained):
    how = ["n=4", "evaluations=[4,8]", "solvers=[ddim,heun]", "reference=40"]
    fine(anylatent(trained, "benchmark", "solvers", "run=run", *how))
    found = json.loads((trained / "run" / "solvers.json").read_text())["solutions"]
    steps = {one["steps"]: one["evaluations"] for one in found if one["solver"] == "ddim"}
    assert steps == {4: 4, 8: 8}


@pytest.mark.slow
def test_a_weak_cascade_guides_stage_by_stage(trained):
    """At scale 0 each stage is the weak one's, so that the samples are those of the weak run."""
    few = ["training.diffusion.steps=5", "generator.stages.bottom.given=[middle]"]
    fine(anylatent(trained, "train", "from=run", "take=autoencoder", "run=weak", *QUICK, *few))
    how = ["steps=3", "n=3", "cond.sign=plus"]
    fine(anylatent(trained, "sample", "run=weak", *how, "guidance=none", "out=weak_alone"))
    guided = ["guidance=autoguidance", "guidance.weak=weak", "guidance.scale=0"]
    fine(anylatent(trained, "sample", "run=run", *how, *guided, "out=guided"))
    found, wanted = (rows(trained / folder, "*.txt") for folder in ("guided", "weak_alone"))
    assert torch.allclose(found, wanted, atol=1e-4)
    message = refused(
        anylatent(trained, "sample", "run=weak", *how, *guided[:1], "guidance.weak=run")
    )
    assert "its stage bottom is told of top, middle" in message


def test_what_a_cascade_can_not_do_is_said(trained):
    shared = ["train", "run=run", "stage=classifier", "classifier.label=sign"]
    message = refused(anylatent(trained, *shared))
    assert "one after the other, in the stages top, middle, bottom" in message


# ---- stop and go on ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("together", "stage"),
    [pytest.param("true", "diffusion", marks=pytest.mark.slow), ("false", "diffusion.middle")],
)
def test_a_run_that_is_stopped_ends_with_the_same_weights(together, stage, tmp_path):
    told = [*BRIEF, "training.diffusion.steps=12", f"training.diffusion.together={together}"]
    told.append("times=warped")
    fine(anylatent(tmp_path, "train", "run=whole", *told))
    message = stopped(tmp_path, stage, 5, "train", "run=parts", *told)
    assert f"stopped at {stage} step 5 of 12" in message
    assert (tmp_path / "parts" / "checkpoints" / f"{stage}.ckpt").exists()
    if together == "false":
        done = tmp_path / "parts" / "logs" / "diffusion.top.csv"
        before = done.read_bytes()
        assert "has only its" in refused(anylatent(tmp_path, "sample", "run=parts", "n=1"))
    out = fine(anylatent(tmp_path, "train", "run=parts", *told))
    if together == "false":
        assert done.read_bytes() == before, "a stage that was done has been trained again"
        assert "diffusion.bottom 12/12" in out and "diffusion.top" not in out
    one, other = (weights(tmp_path, run) for run in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not list((tmp_path / "parts" / "checkpoints").iterdir())


# ---- stages from a run ------------------------------------------------------------------------
def test_a_stage_starts_from_a_run_and_others_from_nothing(trained, tmp_path):
    still = ["training.diffusion.steps=1", "training.diffusion.optimizer.lr=0"]
    told = [f"generator.stages.middle.from={trained / 'run'}", *BRIEF, *still]
    out = fine(anylatent(tmp_path, "train", "run=new", *told))
    assert f"generator.stages.middle from {trained / 'run'}" in out
    old, new = weights(trained, "run"), weights(tmp_path, "new")
    assert old.keys() == new.keys()
    own = [name for name in new if name.startswith("generator.stages.middle.") and new[name].any()]
    assert len(own) > 10 and all(torch.equal(new[name], old[name]) for name in own)
    top = "generator.stages.top.denoiser.backbone.last.weight"
    assert not new[top].any() and old[top].any()
    message = refused(anylatent(tmp_path, "train", "run=b", "generator.stages.top.from=no", *BRIEF))
    assert "from=no: there is nothing there" in message


def test_a_whole_cascade_starts_from_another(trained, tmp_path):
    """from=: every stage comes along; one can be tuned alone, and the run leans on the others."""
    still = ["training.diffusion.steps=1", "training.diffusion.optimizer.lr=0"]
    out = fine(anylatent(tmp_path, "train", f"from={trained / 'run'}", "run=still", *BRIEF, *still))
    assert "| generator" in out
    old, new = weights(trained, "run"), weights(tmp_path, "still")
    assert old.keys() == new.keys()
    assert all(torch.equal(value, new[name]) for name, value in old.items())
    tuned = ["tuning=matching", "tuning.pattern=stages.middle", "training.diffusion.steps=4"]
    told = ["train", f"from={trained / 'run'}", "run=tuned", *BRIEF, *tuned]
    fine(anylatent(tmp_path, *told, "training.diffusion.together=false"))
    own = weights(tmp_path, "tuned")
    assert own and all(name.startswith("generator.stages.middle.") for name in own)
    assert not any(torch.equal(value, old[name]) for name, value in own.items())
    fine(anylatent(tmp_path, "sample", "run=tuned", "n=2", "steps=2"))


@pytest.mark.parametrize("together", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_two_processes_train_it_as_one(together, tmp_path):
    """One by one, the stages that do not learn wait for no other process."""
    told = [*BRIEF, "training.diffusion.steps=4", f"training.diffusion.together={together}"]
    fine(anylatent(tmp_path, "train", "run=one", *told))
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    environment = {
        "ANYLATENT_PLUGINS": "three_levels",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    finish(start(["train", f"run={tmp_path / 'two'}", *told, *two], env=environment))
    one, both = (weights(tmp_path, run) for run in ("one", "two"))
    assert one.keys() == both.keys()
    for name, value in one.items():
        assert torch.allclose(value, both[name], atol=1e-4), name


def test_stages_are_told_apart_in_the_configuration(tmp_path):
    told = ["generator.stages.middle.backbone.width=48", *BRIEF, "training.diffusion.steps=1"]
    fine(anylatent(tmp_path, "train", "run=run", *told))
    found = weights(tmp_path, "run")
    sizes = {
        name: found[f"generator.stages.{name}.denoiser.backbone.first.weight"].shape[0]
        for name in ("top", "middle", "bottom")
    }
    assert sizes == {"top": 32, "middle": 48, "bottom": 32}
    wrong = anylatent(tmp_path, "train", "run=b", "generator.stages.low.backbone.width=8", *BRIEF)
    assert "there is no field low; the latents have top, middle, bottom" in refused(wrong)
    wrong = anylatent(tmp_path, "train", "run=b", "generator.stages.middle=top", *BRIEF)
    assert "generator.stages.middle=top: its" in refused(wrong)
