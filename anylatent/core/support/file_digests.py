"""Digests of the contents of files, of which only those that may have changed are read again.

What was read before counts as long as the path leads to the same inode with the same size, time of
change and time of the inode's change, which no user sets: not another file that was copied over it
with its times, not one whose permissions are others now. As clocks of file systems are coarse, a
digest that was taken within `SETTLED` seconds of such a change is taken anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from anylatent.core.support.disk_cache import Store, cache_directory, digest
from anylatent.core.support.progress import track

SETTLED = 2.0
"""Seconds, the coarsest step of times that is in use (FAT)."""

Stamp: TypeAlias = list[int]


def file_digests(root: Path, paths: Sequence[Path]) -> list[str]:
    """The digest of each file, or in its place "!" and the error for which it can't be read.

    They are kept in the cache directory, with others of files that are asked for by this `root`.
    """
    place, names = str(root.resolve()), [os.path.relpath(path, root) for path in paths]
    with Store(cache_directory() / f"digests-{digest(place)}.txt", f"digests of {place}") as store:
        known = _known(store.read())
        stamps = [_stamp(path) for path in paths]
        found = [
            known[name][1] if name in known and known[name][0] == stamp else None
            for name, stamp in zip(names, stamps, strict=True)
        ]
        unknown = [i for i, one in enumerate(found) if one is None]
        if unknown:
            began = time.time()
            for i, one in zip(unknown, _read([paths[i] for i in unknown]), strict=True):
                found[i] = one
            kept = zip(names, stamps, map(str, found), strict=True)
            now = {n: [s, one] for n, s, one in kept if s and one[0] != "!" and _settled(s, began)}
            store.write(json.dumps(now, separators=(",", ":")))
    return [str(one) for one in found]


def _known(text: str) -> dict[str, tuple[Stamp, str]]:
    """What was kept; nothing of what is damaged."""
    try:
        return {name: (list(stamp), str(one)) for name, (stamp, one) in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _stamp(path: Path) -> Stamp | None:
    """None for what this user can't read, whoever read it before."""
    try:
        status = path.stat()
        readable = os.access(path, os.R_OK)
    except OSError:
        return None
    times = [status.st_mtime_ns, status.st_ctime_ns]
    return [status.st_ino, status.st_size, *times] if readable else None


def _settled(stamp: Stamp, began: float) -> bool:
    return max(stamp[2:]) / 1e9 < began - SETTLED


def _read(paths: Sequence[Path]) -> Iterable[str]:
    with ThreadPoolExecutor() as pool:
        yield from track(pool.map(_digest, paths), "comparing files", len(paths))


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, _hash).hexdigest()
    except OSError as error:
        return f"!{type(error).__name__}"


def _hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)
