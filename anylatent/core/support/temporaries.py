"""Files that are being written under another name, and those that a killed process has left so.

A temporary is locked as long as its writer lives, so that others see which of them are dead. Where
the system has no such locks nothing is swept.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from anylatent.core.support.locks import flocked

_MARK = ".anylatent-"  # no file of anybody else's is ever taken for one of these
_NAME = re.compile(rf"\..+{re.escape(_MARK)}[a-z0-9_]{{8}}(\.[^.]*)?")
_swept: set[Path] = set()  # where this process has looked


@contextmanager
def temporary_of(path: Path) -> Iterator[Path]:
    """A new path beside `path`, where it is written until it is whole; gone when the block ends,
    unless it has been renamed. The first in a folder sweeps the folder."""
    sweep_once(path.parent)
    prefix = f".{path.name}{_MARK}"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
    os.close(handle)
    held = _locked(Path(name), shared=True)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        if held is not None:
            held.close()


def sweep_once(folder: Path) -> None:
    """Sweeps a folder, the first time that this process writes there."""
    if folder.absolute() not in _swept:
        _swept.add(folder.absolute())
        sweep_dead(folder)


def sweep_dead(folder: Path) -> None:
    """Removes what processes that were killed have left half written in a folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if _NAME.fullmatch(name):
            _remove_dead(folder / name)


def sweep_below(folder: Path) -> None:
    """The same in a folder and all below it."""
    for place, _, _ in os.walk(folder):
        sweep_dead(Path(place))


def _remove_dead(path: Path) -> None:
    held = _locked(path, shared=False)
    if held is None:
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # who writes there will learn it
    finally:
        held.close()


def _locked(path: Path, shared: bool) -> BinaryIO | None:
    """The file with a lock on it, None where it can't be had at once."""
    try:
        file = open(path, "r+b", buffering=0)  # noqa: SIM115 - it is the lock
    except OSError:
        return None
    try:
        mine = flocked(file, shared)
    except BlockingIOError:
        mine = False
    if mine:
        return file
    file.close()
    return None
