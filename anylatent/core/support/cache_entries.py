"""What is in the cache directory: entries, who uses them, and which go where there is a limit.

An entry is a file `NAME-KEY.safetensors` or `NAME-KEY.txt` (older ones `.json`), or a directory
`NAME-KEY` of shards; nothing else is ever listed or removed. One that is made or used by a process,
as its lock tells, stays.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from anylatent.core.support.files import UserError, load_metadata
from anylatent.core.support.locks import Claims, InUse, unused
from anylatent.core.support.temporaries import sweep_dead

LIMIT = "ANYLATENT_CACHE_BYTES"
ABOUT = "about.txt"
"""Of a directory of shards, what made it; its time is when it was used last."""

_NAME = re.compile(r"(?P<name>[\w.-]+)-[0-9a-f]{24}(\.safetensors|\.txt|\.json)?")
_held: set[Path] = set()  # by this process: its locks don't keep itself out


@dataclass(frozen=True)
class Entry:
    """A file or directory of the cache; `used` in seconds since 1970."""

    path: Path
    size: int
    used: float

    @property
    def about(self) -> str:
        """What made it, as far as that is told."""
        try:
            if self.path.is_dir():
                return (self.path / ABOUT).read_text(encoding="utf-8")
            if self.path.suffix == ".safetensors":
                return load_metadata(self.path).get("about", "")
            with open(self.path, encoding="utf-8") as file:
                return file.readline().strip()
        except (OSError, UserError, UnicodeDecodeError):
            pass
        return ""


def entries(directory: Path) -> list[Entry]:
    """All that is there, what was used last at the end."""
    found = []
    try:
        paths = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        warnings.warn(f"the cache {directory} can't be read: {error.strerror}", stacklevel=2)
        return []
    for path in paths:
        try:
            inner = list(path.iterdir()) if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in inner)
            told = path / ABOUT
            used = (told if told.exists() else path).stat().st_mtime
            found.append(Entry(path, size, used))
        except OSError:  # it has just gone
            continue
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def remove(entry: Entry) -> bool:
    """Whether it is gone; it stays where a process makes or uses it, or it can't be removed."""
    with _mine(entry.path) as mine:
        if not mine:
            return False
        try:
            if entry.path.is_dir():
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink(missing_ok=True)
        except OSError as error:
            warnings.warn(f"{entry.path} can't be removed: {error}", stacklevel=2)
            return False
        return True


def shrink(directory: Path, keep: Path) -> None:
    """Removes temporaries of dead processes, and what was used least, but for `keep`, until the
    directory is within the limit."""
    sweep_dead(directory)
    limit = _limit()
    every = [] if limit is None else entries(directory)
    left = sum(entry.size for entry in every)
    for entry in every:
        if limit is not None and left > limit and entry.path != keep and remove(entry):
            left -= entry.size


def _limit() -> float | None:
    given = os.environ.get(LIMIT, "")
    try:
        found = float(given) if given else None
    except ValueError:
        found = math.nan
    if found is None or found >= 0:
        return found
    text = f"{LIMIT}={given} is no number of bytes, such as 2e10, and the cache has no limit"
    warnings.warn(text, stacklevel=2)
    return None


def touch(path: Path) -> None:
    """Says that a file is used now, where that can be said."""
    with suppress(OSError):
        os.utime(path)


# ---- locks ------------------------------------------------------------------------------------
@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Waits until an entry that is a file is this process's alone, for the block."""
    lock = path.parent / "locks" / path.stem
    with Claims(lock) as claims, claims.claim(0):
        _held.add(lock)
        try:
            yield
        finally:
            _held.discard(lock)


def use(path: Path) -> InUse:
    """Says that an entry that is a directory is in use."""
    return InUse(path.parent / "locks" / f"{path.name}.use")


@contextmanager
def _mine(path: Path) -> Iterator[bool]:
    """Whether nobody makes or uses an entry, nor does in the block."""
    lock = path.parent / "locks" / path.stem
    if path.is_dir():
        with unused(lock.with_name(f"{path.name}.use")) as mine:
            yield mine
    elif lock in _held:
        yield False
    else:
        with Claims(lock) as claims, claims.claim(0, wait=False) as mine:
            yield mine


# ---- what made it -----------------------------------------------------------------------------
def summary(made_by: object) -> str:
    """Plain values in a line, without the many entries of long lists."""
    text = json.dumps(_short(made_by), ensure_ascii=False)[:1000]
    return text.encode(errors="backslashreplace").decode()  # a path may be of any bytes


def _short(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _short(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(inner) for inner in value] if len(value) <= 8 else f"{len(value)} entries"
    return value if not isinstance(value, str) or len(value) <= 200 else f"{value[:200]} ..."
