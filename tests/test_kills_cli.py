"""Kill -9 anywhere: the same command goes on to the same result, and leaves no stray file."""

import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from anylatent.core.runs.records import owned
from anylatent.core.support.files import replacing, save_text
from anylatent.core.support.temporaries import sweep_below, sweep_dead
from tests.cli import TINY, steps
from tests.forks import forks

FOLDER = [s for s in TINY if not s.startswith(("data", "conditioner"))]
FOLDER += [
    "data=folder",
    "data.path=../pictures",
    "data.size=16",
    "data.held_out=0.3",
    "conditioner=none",
]
TRAIN = ["train", "run=run", *FOLDER, *steps(5, 5), "checkpoint.seconds=0", "log_every=1"]
INVERT = ["invert", "run=run", "n=3", "steps=2", "batch=2"]
BENCHMARK = ["benchmark", "run=run", "n=4", "steps=1"]
KILLED = """
import os, sys, threading
from pathlib import Path
from anylatent.core.cli.main import main
os.environ["ANYLATENT_CACHE"] = "cache"
how, moment = sys.argv[1:3]
sys.argv[1:] = sys.argv[3:]
changes, count = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "tempfile.mkstemp"), 0
def die():
    os.kill(os.getpid(), 9)
def seen(event, told):
    global count
    if event in changes or event == "open" and (told[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        count += 1
        if how == "change" and count == int(moment):
            die()
sys.addaudithook(seen)
if how == "seconds":
    threading.Timer(float(moment), die).start()
main(sys.argv[1:])
Path("changes").write_text(str(count))
os._exit(0)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a run that nobody has killed, its inversion and benchmark; what each command
    took, in changes of files and in seconds."""
    parent, took = tmp_path_factory.mktemp("whole"), {}
    for name in ("pictures", "nothing", "working"):
        (parent / name).mkdir()
    dice = random.Random(0)
    for i in range(20):
        Image.new("RGB", (20, 16), (dice.randrange(256), 9 * i, 99)).save(
            parent / f"pictures/{i}.png"
        )
    for command in (TRAIN, INVERT, BENCHMARK):
        begun = time.monotonic()
        run(parent / "working", command)
        changes = int((parent / "working" / "changes").read_text())
        took[command[0]] = changes, time.monotonic() - begun
        shutil.copytree(parent / "working", parent / command[0])
    return parent, took


def run(folder, command, how="no", moment=0, status=0):
    """The command in this folder, with a cache there, which may be killed."""
    done = forks("", "")(folder, how, moment, *command, code=KILLED)
    assert done.returncode in (status, 0), done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode


def files(folder):
    """What is there, but for the names that TensorBoard makes of times and processes."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {re.sub(r"tfevents.*", "tfevents", name) for name in found}


BEFORE = {"train": "nothing", "invert": "train", "benchmark": "invert"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_killed_anywhere(seed, whole):
    """Half of them in the middle of training, half at a change of a file; all see the same
    pictures, whose cache is cold for training."""
    parent, took = whole
    command = {4: INVERT, 5: BENCHMARK}.get(seed % 6, TRAIN)
    name, dice = command[0], random.Random(seed)
    folder = parent / f"killed_{seed}"
    shutil.copytree(parent / BEFORE[name], folder)
    changes, seconds = took[name]
    for _ in range(2):
        if dice.random() < 0.5:
            how, moment = "change", dice.randint(1, changes)
        else:
            how, moment = "seconds", dice.uniform(0.02, seconds)
        run(folder, command, how, moment, status=-9)
    run(folder, command)
    expected = parent / name
    one, other = (load_file(path / "run" / "model.safetensors") for path in (expected, folder))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert files(folder) == files(expected)
    for kept in ("noise.safetensors", "originals/00000.png", "comparison.png"):
        path = Path("run", "inversion", kept)
        if (expected / path).exists():
            assert (folder / path).read_bytes() == (expected / path).read_bytes()


@pytest.mark.slow
def test_killed_at_every_change_of_a_file_near_the_end_of_a_stage(whole):
    """The checkpoint goes after what it led to is noted, and is no stray file then."""
    parent, took = whole
    changes = took["train"][0]
    for back in range(0, 24, 2):
        folder = parent / f"end_{back}"
        shutil.copytree(parent / "nothing", folder)
        run(folder, TRAIN, "change", changes - back, status=-9)
        run(folder, TRAIN)
        assert files(folder) == files(parent / "train"), back


# ---- quick ------------------------------------------------------------------------------------
WRITES = """
import sys, time
from pathlib import Path
from anylatent.core.support.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing a file, half of which is there."""
    command = [sys.executable, "-c", WRITES, str(tmp_path / "run" / "samples" / "a.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def test_what_a_killed_process_was_writing_goes_and_what_a_live_one_writes_stays(writer, tmp_path):
    folder = tmp_path / "run" / "samples"
    for name in (".a.json.user.json", ".hidden", "a.png", ".a.abcdefgh.json"):
        (folder / name).write_text("a user's own")
    own = files(folder)
    assert len(own) == 5
    sweep_dead(folder)
    assert files(folder) == own, "its writer lives"
    os.kill(writer.pid, 9)
    writer.wait()
    (folder / "deeper").mkdir()
    sweep_below(tmp_path)
    assert len(files(folder)) == 5 and not list(folder.glob(".a.json.????????.json"))
    assert (folder / ".a.json.user.json").exists() and (folder / ".a.abcdefgh.json").exists()


def test_the_owner_of_a_run_sweeps_all_of_it(writer, tmp_path):
    os.kill(writer.pid, 9)
    writer.wait()
    with owned(tmp_path / "run"):
        assert files(tmp_path / "run") == {"samples", ".lock", ".owner.json"}


def test_who_writes_into_a_folder_sweeps_it(writer, tmp_path):
    os.kill(writer.pid, 9)
    writer.wait()
    save_text(tmp_path / "run" / "samples" / "b.json", "{}")
    assert files(tmp_path / "run" / "samples") == {"b.json"}


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    save_text(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert files(tmp_path) == {"a"} and (tmp_path / "a").read_text() == "old"
