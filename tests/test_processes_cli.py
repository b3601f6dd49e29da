"""Several processes at a time: on one cache, on one that is being emptied, and of one training."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anylatent.core.support.cache_entries import entries
from anylatent.core.support.files import load_weights
from tests.cli import QUICK, TINY, finish, start, steps

pytestmark = pytest.mark.slow
TOLD = [*TINY, *QUICK, *steps(3, 6), "log_every=1"]
TWO = [*TINY, *steps(3, 20), "log_every=1", "checkpoint.seconds=0"]
TWO += ["trainer.devices=2", "trainer.strategy=ddp"]
BOUND = 120
"""Seconds in which a process has to end when another one of its training has died; imports on a
busy machine take some."""


def alike(one, other):
    one, other = (load_file(path / "model.safetensors") for path in (one, other))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def whole(cache):
    """The names in a cache, all of whose files can be read."""
    for path in cache.rglob("*.safetensors"):
        load_weights(path)
    return {entry.path.name for entry in entries(cache)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run, and the cache that it has filled."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(["train", f"run={folder / 'run'}", *TOLD], folder / "cache"))
    return folder


# ---- one cache --------------------------------------------------------------------------------
def test_two_runs_fill_one_cache(alone, tmp_path):
    runs, cache = [tmp_path / "one", tmp_path / "other"], tmp_path / "cache"
    for process in [start(["train", f"run={run}", *TOLD], cache) for run in runs]:
        finish(process)
    for run in runs:
        alike(run, alone / "run")
    assert whole(cache) == whole(alone / "cache")


def test_a_cache_that_is_emptied_while_a_run_is_trained(alone, tmp_path):
    """By two at a time, again and again."""
    cache = tmp_path / "cache"
    training = start(["train", f"run={tmp_path / 'run'}", *TOLD], cache)
    while training.poll() is None:
        for process in [start(["cache", "clear"], cache) for _ in range(2)]:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0 and "removed" in out and "Traceback" not in err
    assert "Traceback" not in finish(training)
    alike(tmp_path / "run", alone / "run")
    finish(start(["cache", "clear"], cache))
    assert not whole(cache)


# ---- one training -----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A run that two processes have trained."""
    run = tmp_path_factory.mktemp("together") / "run"
    finish(start(["train", f"run={run}", *TWO]))
    return run


def begun(run):
    """Two processes that are in the second stage of training, by rank."""
    process = start(["train", f"run={run}", *TWO], start_new_session=True)
    while not (run / "checkpoints" / "diffusion.ckpt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    (other,) = map(int, subprocess.check_output(["pgrep", "-P", str(process.pid)]).split())
    return process, other


def ended(process, other):
    """What two processes say until they end, which is soon."""
    _, err = process.communicate(timeout=BOUND)  # both have the pipe
    deadline = time.monotonic() + BOUND
    while Path(f"/proc/{other}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_does_not_wait_for_one_that_was_killed(killed, together, tmp_path):
    run = tmp_path / "run"
    process, other = begun(run)
    os.kill((process.pid, other)[killed], signal.SIGKILL)
    err = ended(process, other)
    assert "the same command continues from the last checkpoint" in err
    assert process.returncode == (-9 if killed == 0 else 1)
    finish(start(["train", f"run={run}", *TWO]))
    alike(run, together)


def test_two_processes_are_interrupted(together, tmp_path):
    run = tmp_path / "run"
    process, other = begun(run)
    os.killpg(process.pid, signal.SIGINT)
    assert "stopped at diffusion step" in ended(process, other) and process.returncode == 1
    finish(start(["train", f"run={run}", *TWO]))
    alike(run, together)


def test_two_processes_run_out_of_time(together, tmp_path):
    run = tmp_path / "run"
    short = ["train", f"run={run}", *TWO, "trainer.max_time=00:00:00:04"]
    for _ in range(20):
        process = start(short)
        _, err = process.communicate(timeout=900)
        assert "Traceback" not in err
        if process.returncode == 0:
            break
        assert re.search(r"stopped at \w+ step \d+ of \d+; the same\s+command continues", err)
    alike(run, together)


def test_a_process_does_not_wait_for_one_that_never_began(tmp_path):
    """The other one dies while it is still importing."""
    process = start(["train", f"run={tmp_path / 'run'}", *TWO], start_new_session=True)
    found = b""
    while not found:
        assert process.poll() is None, process.communicate()
        found = subprocess.run(["pgrep", "-P", str(process.pid)], stdout=subprocess.PIPE).stdout
        time.sleep(0.02)
    other = int(found.split()[0])
    os.kill(other, signal.SIGKILL)
    assert "process 1 of this training has died" in ended(process, other)
