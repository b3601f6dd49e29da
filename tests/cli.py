"""Commands in tests: settings of tiny networks on real digits, and ways to run a command."""

import contextlib
import csv
import io
import os
import re
import signal
import subprocess
import sys
import time

import torch
from PIL import Image

from anylatent.core.cli.main import main

TINY = [
    "data=mnist",
    "data.size=16",
    "data.held_out=0.9",
    "conditioner=label",
    "autoencoder.channels=8",
    "autoencoder.blocks=1",
    "autoencoder.heads=1",
    "backbone.channels=8",
    "backbone.blocks=1",
    "backbone.heads=1",
    "backbone.embedding=16",
    "backbone.multipliers=[1]",
    "backbone.attention=[]",
    "training.autoencoder.batch=8",
    "training.diffusion.batch=8",
    "pictures.every=0",
    "trainer.accelerator=cpu",
]

QUICK = ["training.diffusion.warmup=1", "training.diffusion.average=0"]
QUICK += ["training.diffusion.optimizer.lr=1e-2"]

CLASSIFY = ["stage=classifier", "classifier.label=digit", "pictures.every=0"]
CLASSIFY += ["trainer.accelerator=cpu", "training.classifier.batch=8"]


def steps(autoencoder, diffusion):
    return [f"training.autoencoder.steps={autoencoder}", f"training.diffusion.steps={diffusion}"]


DIGITS = [*TINY, *steps(20, 60), *QUICK, "pictures.every=20", "pictures.samples=4", "solver=ddpm"]
"""The settings of the run of digits that all tests share, see the fixture `digits`."""


def answer(capsys, *arguments):
    """Exit code, output and errors of a command in this process."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        code = stopped.code
    return code, *capsys.readouterr()


def launch(*arguments):
    """A command in this process, for fixtures that tests share; its output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main([str(argument) for argument in arguments])
    return out.getvalue()


def start(arguments, cache=None, env=None, **options):
    """The command as a process of its own, with some other variables of its environment."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    if cache is not None:
        environment["ANYLATENT_CACHE"] = str(cache)
    command = [sys.executable, "-m", "anylatent.core.cli.main", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes, **options)


def finish(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, out + err
    return out


def stop_in(stage, number, arguments, run):
    """Starts the command, waits for a checkpoint of the stage, sends the signal: its output."""
    process = start([*arguments, "checkpoint.seconds=0"])
    checkpoint, deadline = run / "checkpoints" / f"{stage}.ckpt", time.monotonic() + 900
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    first = checkpoint.stat().st_ino  # the next one is written after the step has been told
    while checkpoint.exists() and checkpoint.stat().st_ino == first and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    out, err = process.communicate(timeout=900)
    assert process.returncode == (1 if number == signal.SIGINT else -signal.SIGKILL), err
    assert checkpoint.exists(), "the stage was over before the signal came"
    assert "Traceback" not in err
    if number == signal.SIGINT:
        assert re.search(rf"stopped at {stage} step \d+ of 60; the same\s+command continues", err)
    return out


def rows(path):
    """A table of figures, one mapping for each line."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels(folder):
    """The samples of a command in a folder, as numbers from 0 to 255."""
    paths = sorted(folder.glob("0_*.png"))
    return torch.stack([torch.tensor(list(Image.open(p).getdata())) for p in paths]).int()
