"""Runs that can't be harmed: one owner, finished at the last step alone, finite, gone on with."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from anylatent.core.runs.directory import RunDirectory, Stages
from anylatent.core.runs.records import owned
from anylatent.core.support.files import UserError
from tests.cli import QUICK, TINY, rows, start, steps

FEW = [*TINY, *QUICK, *steps(2, 4), "log_every=1"]


def hold(run, told):
    with owned(run):
        told.set()
        time.sleep(600)


@contextmanager
def owner(run):
    """A process that has the run directory, a fork of this one."""
    fork = multiprocessing.get_context("fork")
    told = fork.Event()
    process = fork.Process(target=hold, args=(run, told), daemon=True)
    process.start()
    assert told.wait(60)
    yield process
    process.kill()
    process.join()


def files(folder):
    return {str(p.relative_to(folder)) for p in Path(folder).rglob("*")}


@pytest.fixture
def held(tmp_path):
    """A run directory that another process has, and that process."""
    with owner(tmp_path / "run") as process:
        yield tmp_path / "run", process


# ---- one owner --------------------------------------------------------------------------------
def test_a_second_process_is_refused_and_told_who_has_the_run(held, fails):
    run, process = held
    before = files(run)
    error = fails("train", f"run={run}", *FEW)
    assert f"in use by process {process.pid} on" in error and "another directory" in error
    assert files(run) == before


def test_a_run_is_free_again_when_its_owner_dies(held):
    run, process = held
    process.kill()
    process.join()
    with owned(run):
        assert json.loads((run / ".owner.json").read_text())["process"] == os.getpid()
    assert files(run.parent) == {"run"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_one_that_is_ended_lets_go_of_the_run(number, code, cli, tmp_path, monkeypatch):
    """Before training begins, while data are read."""

    def read(*_):
        assert (tmp_path / "run" / ".owner.json").exists()
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr("anylatent.core.training.loop.data_to_learn", read)
    before = signal.getsignal(signal.SIGTERM)
    assert cli("train", f"run={tmp_path / 'run'}", *FEW)[0] == code
    assert not files(tmp_path) and signal.getsignal(signal.SIGTERM) is before


def test_samples_into_a_run_that_is_trained_are_refused_and_elsewhere_are_not(copied, cli, fails):
    sample = ["sample", f"run={copied}", "n=1", "steps=1"]
    with owner(copied):
        assert "in use by process" in fails(*sample)
        assert cli(*sample, f"out={copied.parent / 'out'}")[0] == 0
    assert cli(*sample)[0] == 0


def test_a_first_attempt_that_fails_leaves_nothing(tmp_path, fails):
    fails("train", f"run={tmp_path / 'a' / 'run'}", *FEW, "training.diffusion.batch=0")
    assert not (tmp_path / "a").exists()
    with pytest.raises(RuntimeError), owned(tmp_path / "run"):
        (tmp_path / "run" / "logs").mkdir()
        (tmp_path / "run" / "config.yaml").write_text("a: 1")
        raise RuntimeError
    assert not (tmp_path / "run").exists()


def test_a_run_within_its_data_is_refused_and_beside_them_is_not(tmp_path, cli, fails, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(6):
        Image.new("L", (16, 16), 40 * number).save(data / f"{number}.png")
    named = ("data", "conditioner")
    plain = [item for item in FEW if not item.startswith(named)]
    told = [*plain, "data=folder", "data.size=16", "conditioner=none"]
    monkeypatch.chdir(data)
    for run, path in ((".", "."), (data / "run", data), ("a/b", "../data")):
        error = fails("train", f"run={run}", *told, f"data.path={path}")
        assert f"run={run} lies in data.path={path}, as some of which" in error
    assert len(list(data.iterdir())) == 6
    code, _, err = cli("train", "run=../data run", *told, "data.path=.", "data.held_out=0.5")
    assert code == 0, err


def test_what_is_worth_keeping_is_kept(tmp_path):
    with pytest.raises(RuntimeError), owned(tmp_path / "run"):
        (tmp_path / "run" / "checkpoints").mkdir()
        (tmp_path / "run" / "checkpoints" / "autoencoder.ckpt").write_text("")
        raise RuntimeError
    assert (tmp_path / "run" / "checkpoints" / "autoencoder.ckpt").exists()
    with pytest.raises(RuntimeError), owned(tmp_path / "run"):
        (tmp_path / "run" / "checkpoints" / "autoencoder.ckpt").unlink()
        raise RuntimeError
    assert (tmp_path / "run").exists(), "it was not made by this process"


def test_a_save_never_puts_a_stage_back(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.save({"a": torch.ones(2)}, Stages(("autoencoder", "diffusion"), True))
    before = directory.weights_path.read_bytes()
    with pytest.raises(UserError, match="has not trained diffusion"):
        directory.save({"a": torch.zeros(2)}, Stages(("autoencoder",)))
    assert directory.weights_path.read_bytes() == before


# ---- finished at the last step alone ----------------------------------------------------------
def test_a_trainer_that_stops_early_finishes_nothing(tmp_path, cli, fails):
    run = tmp_path / "run"
    told = ["train", f"run={run}", *TINY, *QUICK, *steps(1, 5000)]
    error = fails(*told, "trainer.max_time=00:00:00:01")
    assert "stopped at" in error and "the same command continues" in error
    assert (run / "checkpoints").is_dir() and list((run / "checkpoints").iterdir())
    assert "diffusion" not in RunDirectory(run).stages().done


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_time=5", "days:hours:minutes:seconds"),
        ("precision=8", "there are 32-true"),
        ("strategy=fsdp", "auto or ddp"),
        ("max_epochs=3", "no setting trainer.max_epochs"),
        ("foo=3", "no setting trainer.foo; trainer has accelerator, devices"),
        ("devices=[]", "settings of trainer"),
        ("devices=99", "the batch of 8 does not divide among 99 processes"),
    ],
)
def test_settings_of_the_trainer_that_are_not_ours(setting, message, tmp_path, fails):
    plus = "++" if setting in ("max_epochs=3", "foo=3") else ""
    assert message in fails("train", f"run={tmp_path / 'run'}", *FEW, f"{plus}trainer.{setting}")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [0, 1])
def test_all_ranks_stop_after_the_same_step(sent, tmp_path):
    """Ctrl-C reaches one of two processes alone."""
    run = tmp_path / "run"
    told = ["train", f"run={run}", *TINY, *QUICK, *steps(2, 4000), "log_every=1"]
    process = start([*told, "trainer.devices=2", "trainer.strategy=ddp"])
    rows = run / "logs" / "diffusion.csv"
    while not rows.exists():
        assert process.poll() is None
        time.sleep(0.05)
    ranks = {0: process.pid}
    (ranks[1],) = map(int, subprocess.check_output(["pgrep", "-P", str(process.pid)]).split())
    os.kill(ranks[sent], signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "stopped at diffusion step" in err, out + err
    assert "Traceback" not in err


# ---- finite -----------------------------------------------------------------------------------
WILD = ["training.diffusion.optimizer.lr=1e30", "training.diffusion.clip=0"]


def test_a_loss_that_is_not_finite_ends_training_and_the_last_checkpoint_stays(tmp_path, fails):
    run = tmp_path / "run"
    wild = [*FEW, *WILD, "training.diffusion.warmup=0", "training.diffusion.steps=30"]
    error = fails("train", f"run={run}", *wild)
    assert "diffusion: loss, gradient at step 2 is not finite" in error
    assert "optimizer.lr (now 1e+30)" in error and "no checkpoint of this stage" in error
    stages = RunDirectory(run).stages()
    assert stages.done == ("autoencoder",), "what was finished before stays"
    assert all(x.isfinite().all() for x in load_file(run / "model.safetensors").values())


def test_weights_that_are_not_finite_are_not_kept(tmp_path, fails):
    """The last step breaks them, after which no loss is computed."""
    run = tmp_path / "run"
    wild = [*FEW, *WILD, "training.diffusion.warmup=0", "training.diffusion.steps=1"]
    wild[wild.index(WILD[0])] = "training.diffusion.optimizer.lr=1e39"
    error = fails("train", f"run={run}", *wild)
    assert "the weight generator" in error and "at step 1 is not finite" in error
    assert RunDirectory(run).stages().done == ("autoencoder",)


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("guidance.scale=nan", "guidance.scale=nan"),
        ("training.diffusion.optimizer.lr=nan", "optimizer.lr=nan"),
        ("training.diffusion.clip=inf", "training.diffusion.clip=inf"),
        ("solver=heun solver.churn=nan", "solver.churn=nan"),
    ],
)
def test_settings_that_are_not_finite_are_refused_by_name(setting, name, tmp_path, fails):
    assert name in fails("train", f"run={tmp_path / 'run'}", *FEW, *setting.split())
    assert not (tmp_path / "run").exists()


def test_a_setting_that_is_infinite_by_default_may_be(copied, cli):
    told = ["solver=heun", "solver.churn_max=inf", "guidance.sigma_max=inf", "guidance.scale=2"]
    assert cli("sample", f"run={copied}", "n=1", "steps=1", *told)[0] == 0


def test_samples_that_are_not_finite_are_no_samples(copied, fails, cli):
    """Those of batches before are kept."""
    path = copied / "model.safetensors"
    assert cli("sample", f"run={copied}", "n=1", "steps=2", "guidance=none")[0] == 0
    shutil.rmtree(copied / "samples")
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    huge = {k: v * 1e25 for k, v in tensors.items() if "backbone" in k and k.endswith("weight")}
    save_file({**tensors, **huge}, path, metadata)
    error = fails("sample", f"run={copied}", "n=3", "steps=3", "seed=5", "guidance=none")
    assert "the sample of seed (5, 0), and 2 more of its batch is not finite after step" in error
    assert not list((copied / "samples").glob("*.png"))


# ---- going on ---------------------------------------------------------------------------------
def losses(run, stage="diffusion"):
    told = rows(run / "logs" / f"{stage}.csv")
    return [(int(row["step"]), float(row["loss"])) for row in told]


def test_a_run_goes_on_with_its_own_settings_and_longer(tmp_path, cli, fails):
    """Its name alone is enough; what it goes on from is all that its optimiser had."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    flat = ["training.diffusion.decay=0"]  # or another rate would lead to the same place
    assert cli("train", f"run={run}", *FEW, *flat)[0] == 0
    code, out, _ = cli("train", f"run={run}")
    assert code == 0 and "goes on with its own settings" in out and "nothing is left" in out
    assert cli("train", f"run={run}", "training.diffusion.steps=8")[0] == 0
    assert cli("train", f"run={whole}", *FEW, *flat, "training.diffusion.steps=8")[0] == 0
    assert losses(run) == losses(whole) and len(losses(run)) == 8
    one, other = (load_file(path / "model.safetensors") for path in (run, whole))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    kept = yaml.safe_load((run / "config.yaml").read_text())
    assert kept["training"]["diffusion"]["steps"] == 8
    assert "8 there, 7 now" in fails("train", f"run={run}", "training.diffusion.steps=7")
    assert "channels: 8 there" in fails("train", f"run={run}", "backbone.channels=16")
    error = fails("train", f"run={run}", "training.autoencoder.steps=5")
    assert "its diffusion has been trained on it since" in error
    assert cli("train", f"run={run}", "finish=yes")[0] == 0 and not (run / "finished").exists()
    error = fails("train", f"run={run}", "training.diffusion.steps=9")
    assert "is not there" in error and "from=" in error


def test_a_run_tells_what_made_it(tmp_path, cli):
    run = tmp_path / "run"
    assert cli("train", f"run={run}", *FEW, "stage=autoencoder")[0] == 0
    assert cli("train", f"run={run}", "stage=diffusion")[0] == 0
    assert cli("train", f"run={run}")[0] == 0, "which has nothing to do"
    told = [json.loads(line) for line in (run / "provenance.jsonl").read_text().splitlines()]
    assert len(told) == 2 and all(one["torch"] == torch.__version__ for one in told)
    assert set(told[0]) > {"time", "command", "anylatent", "commit", "python", "machine", "gpus"}


@pytest.mark.slow
def test_two_processes_one_run(tmp_path):
    """The slower of two can't take a finished model back: it never begins."""
    told = ["train", f"run={tmp_path / 'run'}", *FEW, "training.diffusion.steps=20000"]
    first = start(told)
    while not (tmp_path / "run" / "logs").exists():
        assert first.poll() is None
        time.sleep(0.02)
    second = start(told)
    _, err = second.communicate(timeout=300)
    assert second.returncode == 1 and f"in use by process {first.pid}" in err
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=300)
    assert "stopped at diffusion step" in err
