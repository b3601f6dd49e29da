"""The processes of one training: when one of them dies, none of the others waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch

from anylatent.core.support.files import UserError

FIRST = "ANYLATENT_FIRST_PROCESS"
"""Tells processes that are started by the first one which that is."""

OBSERVER = "_launch_process_observer"
"""What in Lightning is given the processes that it has started."""

_started: list[subprocess.Popen[Any]] = []  # by this process, for this stage or one before

PAUSE, GRACE = 0.5, 2.0
"""Seconds between two looks, and those that a process has to end by itself."""

CONTINUES = "training has ended; the same command continues from the last checkpoint"


@contextmanager
def watched(trainer: pl.Trainer) -> Iterator[None]:
    """While the block runs, this process ends soon after another one that trains with it has.

    Raises UserError where a step tells of it; where this process waits for something else, a
    thread says so and ends it.
    """
    if trainer.world_size == 1:
        yield
        return
    if trainer.local_rank == 0:
        os.environ[FIRST] = str(os.getpid())
    first, done = int(os.environ.get(FIRST, os.getpid())), threading.Event()
    threading.Thread(target=_watch, args=(first, done), daemon=True).start()
    try:
        with _telling():
            yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise UserError(f"another process of this training does not answer: {CONTINUES}") from error
    finally:
        done.set()


@contextmanager
def _telling() -> Iterator[None]:
    """Lightning tells of the processes that it starts, instead of killing this one when one of them
    has died, without a word."""
    from pytorch_lightning.strategies.launchers import subprocess_script

    usual = getattr(subprocess_script, OBSERVER)
    setattr(subprocess_script, OBSERVER, _started.extend)
    try:
        yield
    finally:
        setattr(subprocess_script, OBSERVER, usual)


def _watch(first: int, done: threading.Event) -> None:
    while not done.wait(PAUSE):
        lost = _lost(first)
        if lost and not done.wait(GRACE):
            _end(f"anylatent: {lost}: {CONTINUES}\n")


def _lost(first: int) -> str:
    """Which process has died, "" where all that this one knows of live."""
    if os.getpid() != first:
        return "" if os.getppid() == first else "the first process of this training has died"
    for number, process in enumerate(_started, 1):
        if process.poll():
            return f"process {number} of this training has died (status {process.returncode})"
    return ""


def _end(message: str) -> None:
    """Ends this process, which may wait for what never comes, and those that it has started."""
    sys.stderr.write(message)
    sys.stderr.flush()
    for process in _started:
        process.kill()
    os._exit(1)
