"""Conditioners of a plugin in one file, on real digits: one learns and varies, one encodes."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import anylatent as al
from anylatent.core.autoencoders import FrozenEncoder
from anylatent.core.cli.main import main
from anylatent.core.registry.store import _parts
from tests.cli import TINY, pixels, rows, steps

HERE = Path(__file__).parent / "capabilities"
HOW = ["trainer.accelerator=cpu", "pictures.every=0", "training.diffusion.batch=8"]
TOLD = [word for word in TINY if not word.startswith("conditioner")]
TOLD += ["solver=ddim", "steps=4", "log_every=1"]
LEARNS = ["data=mnist", "data.size=8", "data.held_out=0.9", "autoencoder=identity"]
LEARNS += [word for word in TINY if word.startswith("backbone.")]
LEARNS += ["conditioner=thumbnail", "conditioner.side=8", "conditioner.cut=3"]
LEARNS += [*HOW, "solver=ddim", "steps=4", "log_every=1"]
FAST = ["training.diffusion.steps=40", "training.diffusion.warmup=0"]
FAST += ["training.diffusion.optimizer.lr=1e-2", "training.diffusion.average=0.8"]


@pytest.fixture(scope="module")
def hints():
    """The plugin's module; its parts are there for the tests of this file alone."""
    before = dict(_parts["conditioner"])
    spec = importlib.util.spec_from_file_location("hints", HERE / "hints.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    _parts["conditioner"].clear()
    _parts["conditioner"].update(before)


@pytest.fixture
def seen(hints, monkeypatch):
    """The number of the step, and what it saw of the condition, in order."""
    found, vary = [], hints.Thumbnail.vary

    def watched(self, cond, noise):
        varied = vary(self, cond, noise)
        found.append(varied.values["small"].clone())
        return varied

    monkeypatch.setattr(hints.Thumbnail, "vary", watched)
    return found


@pytest.fixture(scope="module")
def learned(hints, tmp_path_factory, cache):
    """A run whose conditioner learned, trained in one go."""
    path = tmp_path_factory.mktemp("learned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYLATENT_CACHE", str(cache))
        main(["train", f"run={path}", *LEARNS, *FAST, "pictures.every=20", "pictures.samples=2"])
    return path


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    """A file of a picture that no training saw."""
    item = al.get("data", "mnist")(size=16, held_out=0.9).held_out()[0]
    path = tmp_path_factory.mktemp("digit") / "digit.png"
    Image.fromarray(((item["image"][0] + 1) * 127.5).round().byte().numpy()).save(path)
    return path


# ---- contracts --------------------------------------------------------------------------------
def pictures(count):
    return list(al.Noise.of(3, count).normal(1, 16, 16).tanh())


def test_contracts(hints):
    al.testing.check_conditioner(hints.Thumbnail(), {"image": pictures(3)})
    conv = al.get("autoencoder", "conv")(shape=(1, 16, 16), channels=8, blocks=1, heads=1)
    blurred = hints.Blurred(autoencoder=FrozenEncoder(conv))
    al.testing.check_conditioner(blurred, {"image": pictures(3)})
    assert not blurred.state_dict(), "it owns nothing of the autoencoder"


# ---- one that learns --------------------------------------------------------------------------
def losses(path):
    told = rows(path / "logs" / "diffusion.csv")
    return [float(row["held_out_loss"]) for row in told if row.get("held_out_loss")]


def test_it_learns_with_the_generator_and_is_saved(learned, hints):
    weights = load_file(learned / "model.safetensors")
    names = {f"conditioner.{name}" for name in hints.Thumbnail().state_dict()}
    assert {name for name in weights if name.startswith("conditioner.")} == names
    figures = losses(learned)
    assert len(figures) == 2 and figures[1] < 0.95 * figures[0]
    run = al.load(learned, device="cpu")
    for name, value in run.system.conditioner.state_dict().items():
        assert torch.equal(value, weights[f"conditioner.{name}"])


def test_what_it_learned_is_in_the_held_out_loss(learned):
    """Other weights of the conditioner, or another's picture as a hint, and the loss is higher."""
    run = al.load(learned, device="cpu")
    items = al.get("data", "mnist")(size=8, held_out=0.9).held_out()
    batch = run.system.modality.collate([items[i] for i in range(256)])

    def loss(batch):
        x0 = run.system.normaliser.encode(run.system.autoencoder.encode(batch).mean)
        return lambda hint: float(
            run.system.generator.loss(x0, run.system.condition(hint), al.Noise.of(5, 256)).mean()
        )

    with torch.no_grad():
        own = loss(batch)({"image": batch["image"]})
        other = loss(batch)({"image": batch["image"].roll(1, 0)})
        torch.nn.init.zeros_(run.system.conditioner.network[2].weight)
        blind = loss(batch)({"image": batch["image"]})
    assert own < 0.9 * other and own < 0.9 * blind, (own, other, blind)


def test_a_stopped_run_sees_the_same_variants_and_ends_with_the_same_weights(
    learned, seen, stop_at, cli, tmp_path
):
    """Stopped after 15 of 40 steps: variants of all steps, weights and averages are those of one
    that went through."""
    train = ["train", f"run={tmp_path / 'run'}", *LEARNS, *FAST]
    undo = stop_at("diffusion", 15)
    assert cli(*train)[0] != 0
    assert (tmp_path / "run" / "checkpoints" / "diffusion.ckpt").exists()
    undo()
    assert cli(*train)[0] == 0
    halves = list(seen)
    seen.clear()
    assert cli("train", f"run={tmp_path / 'whole'}", *LEARNS, *FAST)[0] == 0
    assert len(halves) == len(seen) == 40
    assert all(torch.equal(a, b) for a, b in zip(halves, seen, strict=True))
    weights = [load_file(p / "model.safetensors") for p in (tmp_path / "run", learned)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_each_step_sees_another_variant_of_what_was_cached_once(
    hints, seen, cli, tmp_path, monkeypatch
):
    """25 items, twenty steps of 8: one call of `forward` for each, and holes at all 36 corners."""
    calls, forward = [], hints.Thumbnail.forward
    monkeypatch.setattr(
        hints.Thumbnail, "forward", lambda s, c: calls.append(len(c["image"])) or forward(s, c)
    )
    told = [*LEARNS, "data.held_out=0.995", "training.diffusion.steps=20"]
    assert cli("train", f"run={tmp_path / 'run'}", *told)[0] == 0
    assert sum(calls) == 25, "each of 25 items was read once"
    holes = torch.cat([(small == 0).flatten(1).float().argmax(1) for small in seen])
    assert len(holes) == 160 and holes.unique().numel() == 36, "a hole may be anywhere"
    first = [float(small.sum()) for small in seen]
    assert len(set(first)) == 20, "no two steps see the same"


def test_a_fresh_process_samples_it(learned, digit, tmp_path, cli):
    """The plugin by its environment variable; the picture as a file, and dropped."""
    environment = {
        **os.environ,
        "ANYLATENT_PLUGINS": "hints",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    told = ["sample", f"run={learned}", "n=2", f"cond.image={digit}", "device=cpu"]
    command = [sys.executable, "-m", "anylatent.core.cli.main", *told, f"out={tmp_path / 'a'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert cli(*told, f"out={tmp_path / 'b'}")[0] == 0
    assert cli(*told[:3], "device=cpu", f"out={tmp_path / 'c'}")[0] == 0
    a, b, c = (pixels(tmp_path / name) for name in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_columns_and_conditions_have_names_of_their_own(learned, digit, cli, fails):
    """What is typed is a column; what guidance scales is a condition."""
    error = fails("sample", f"run={learned}", "n=1", "cond.hint=1")
    assert "no condition hint" in error and "this run has image" in error
    sample = ["sample", f"run={learned}", "n=1", f"cond.image={digit}"]
    assert "no such condition; it has hint, ink" in fails(*sample, "guidance.scales.image=2")
    assert cli(*sample, "guidance.scales.hint=3", "guidance.scale=1")[0] == 0
    assert cli("invert", f"run={learned}", "n=4", "steps=2")[0] == 0


def test_another_run_starts_from_it(learned, tmp_path, cli, hints):
    """from=: its conditioner comes along; one alone can be tuned, and the run leans on the rest."""
    weights = load_file(learned / "model.safetensors")
    still = ["training.diffusion.steps=1", "training.diffusion.optimizer.lr=0"]
    code, out, err = cli(
        "train", f"from={learned}", f"run={tmp_path / 'still'}", *HOW, *FAST[1:], *still
    )
    assert code == 0, err
    assert re.search(r"\| conditioner \| [0-9]+ numbers in 6 tensors \| - \| - \|", out)
    same = load_file(tmp_path / "still" / "model.safetensors")
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    tuned = ["tuning=matching", "tuning.pattern=^conditioner", "training.diffusion.steps=4"]
    assert cli("train", f"from={learned}", f"run={tmp_path / 'tuned'}", *HOW, *tuned)[0] == 0
    own = load_file(tmp_path / "tuned" / "model.safetensors")
    assert own and all(name.startswith("conditioner.") for name in own)
    assert not any(torch.equal(value, weights[name]) for name, value in own.items())


# ---- one that encodes by the run's own autoencoder -------------------------------------------
def test_the_runs_own_autoencoder_encodes_a_source(hints, digit, cli, tmp_path):
    run = tmp_path / "run"
    told = [*TOLD, "conditioner=blurred", *FAST[1:], *steps(10, 12)]
    assert cli("train", f"run={run}", *told)[0] == 0
    assert not any(name.startswith("conditioner") for name in load_file(run / "model.safetensors"))
    system = al.load(run, device="cpu").system
    image = al.get("data", "mnist")(size=16, held_out=0.9).held_out()[0]["image"][None]
    blurred = torch.nn.functional.interpolate(
        torch.nn.functional.adaptive_avg_pool2d(image, 4), (16, 16)
    )
    wanted = system.autoencoder.encode({"image": blurred}).mean["z"]
    assert torch.equal(system.condition({"image": image}).values["source"], wanted)
    outputs = []
    for name, hint in {"own": [f"cond.image={digit}"], "none": []}.items():
        out = tmp_path / name
        assert cli("sample", f"run={run}", "n=2", *hint, f"out={out}", "device=cpu")[0] == 0
        outputs.append(pixels(out))
    assert not torch.equal(*outputs)


def test_joint_training_moves_the_autoencoder_by_its_own_loss_alone(hints, cli, tmp_path):
    """The source is encoded anew at each step, without a gradient and as in evaluation."""
    told = [*TOLD, "conditioner=blurred", "stage=joint", "training.diffusion.steps=3"]
    assert cli("train", f"run={tmp_path / 'run'}", *told)[0] == 0
