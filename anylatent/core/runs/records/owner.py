"""Who may write into a run directory: one process at a time."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from anylatent.core.runs.directory import first_process
from anylatent.core.support.files import UserError, save_text
from anylatent.core.support.temporaries import sweep_below

LOCK, OWNER = ".lock", ".owner.json"
KEPT = ("model.safetensors", "checkpoints/*.ckpt", "classifiers/*.safetensors")
"""What makes a directory that was empty before worth keeping, when its first training fails."""


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """While the block runs, no other process writes into the directory.

    Raises UserError at once, saying who does, where another one has it; a lock dies with its
    process, also on network file systems. Of several processes of one training the first has it. A
    directory that was empty, and in which nothing is worth keeping when the block fails, goes.
    """
    if not first_process():
        yield
        return
    from filelock import FileLock, Timeout

    made, empty = _make(directory)
    lock = FileLock(directory / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{directory} is in use by {_owner(directory)}") from None
    except OSError as error:
        raise UserError(f"can not write into {directory}: {error}") from error
    try:
        sweep_below(directory)
        save_text(directory / OWNER, json.dumps(_self()))
        yield
    except BaseException:
        if empty and not any(True for pattern in KEPT for _ in directory.glob(pattern)):
            _clear(directory)
        raise
    finally:
        (directory / OWNER).unlink(missing_ok=True)
        _release(lock, directory, made)


@contextmanager
def writing(run: Path, folder: Path) -> Iterator[None]:
    """Owns the run where the folder that is written lies in it. Raises UserError where nothing can
    be written there, before anything is computed."""
    _check_place(folder)
    if folder.resolve().is_relative_to(run.resolve()):
        with owned(run):
            yield
    else:
        yield


def _check_place(folder: Path) -> None:
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:  # a name that no file system takes
        raise UserError(f"out={folder}: {error.strerror}; give another one") from error
    if not there.is_dir():
        raise UserError(f"out={folder}: {there} is a file; give a directory, or a new name")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"out={folder}: nothing may be written into {there}; give another one")


def _make(directory: Path) -> tuple[list[Path], bool]:
    """Makes the directory; what was made, the innermost first, and whether there is nothing in the
    directory but a lock."""
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return made, all(path.name in (LOCK, OWNER) for path in directory.iterdir())
    except OSError as error:
        raise UserError(f"can not write into {directory}: {error}") from error


def _release(lock: object, directory: Path, made: list[Path]) -> None:
    """Frees the lock, whose file goes, and what was made for nothing."""
    (directory / LOCK).unlink(missing_ok=True)  # who comes now makes another one, and has that
    with suppress(OSError):  # something is in it
        for path in made:
            path.rmdir()
    lock.release()  # type: ignore[attr-defined]


def _clear(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _self() -> dict[str, object]:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    command = " ".join(["anylatent", *sys.argv[1:]])
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since, "is": command}


def _owner(directory: Path) -> str:
    """The process that has it, in words."""
    try:
        told = json.loads((directory / OWNER).read_text(encoding="utf-8"))
        who = f"process {told['process']} on {told['host']} since {told['since']} ({told['is']})"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"  # which has just begun, or is just ending
    return f"{who}: wait for it, end it, or give another directory"
