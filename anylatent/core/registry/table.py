"""What is registered, without importing it: a table in the cache, from when it was imported last.

It counts as long as nothing was installed since and no file of the packages that register parts has
another time or size; else, and where a plugin could not be imported, it is made anew.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from anylatent.core.registry.declarations import declared
from anylatent.core.registry.part import Part
from anylatent.core.registry.plugins import ENVIRONMENT, broken, plugin_modules
from anylatent.core.registry.store import _parts, groups, known
from anylatent.core.support.disk_cache import Store, cache_directory, digest

_OWN = "anylatent"


@dataclass(frozen=True)
class Row:
    """A part: its summary, its settings by name as texts, and parts within it by group and name."""

    summary: str
    settings: dict[str, str]
    parts: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Rows:
    """A group: its parts by name, and what else they may be given."""

    parts: dict[str, Row]
    offered: list[str]


Table = dict[str, Rows]


def table() -> Table:
    """All groups by name, sorted. With parts that this process has registered by itself it is for
    this process alone."""
    if any(_parts.values()):
        return _rows_of_all()
    with Store(cache_directory() / f"parts-{digest(_place())}.txt", "registered parts") as store:
        found = _read(store.read())
        if found is None:
            found = _rows_of_all()
            if not broken():
                store.write(_written(found))
        return found


def _rows_of_all() -> Table:
    found = Table()
    for group in groups():
        parts = {name: _row(part) for name, part in known(group).items()}
        found[group] = Rows(parts, list(declared(group).offered()))
    return found


def _place() -> list[object]:
    """All that decides which plugins there are: this installation, and what was installed there."""
    site = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    installed = [_stamp(path) for path in site]
    return [sys.version, sys.path, installed, os.environ.get(ENVIRONMENT, "")]


def _row(part: Part) -> Row:
    settings = {key: str(default) for key, (_, default) in part.settings().items()}
    return Row(part.summary, settings, dict(part.parts))


# ---- in the cache -----------------------------------------------------------------------------
def _written(found: Table) -> str:
    made_of = {part.factory.__module__ for group in groups() for part in known(group).values()}
    packages = sorted({name.partition(".")[0] for name in (_OWN, *plugin_modules(), *made_of)})
    files = [file for name in packages for file in _source(name)]
    rows = {group: asdict(some) for group, some in found.items()}
    text = json.dumps({"files": files, "stamps": digest(_stamps(files)), "groups": rows})
    return f"{digest(text)}\n{text}"


def _read(text: str) -> Table | None:
    """What was written; None for nothing, for something else, and for what is no longer so."""
    head, _, body = text.partition("\n")
    if not body or digest(body) != head:
        return None
    kept = json.loads(body)
    if digest(_stamps(kept["files"])) != kept["stamps"]:
        return None
    return {
        group: Rows({name: Row(**row) for name, row in rows["parts"].items()}, rows["offered"])
        for group, rows in kept["groups"].items()
    }


def _source(package: str) -> list[str]:
    """Where the code of a module or package lies: a file, or folders."""
    module = sys.modules.get(package)
    own = getattr(module, "__file__", None)
    return [str(path) for path in getattr(module, "__path__", [own] if own else [])]


def _stamps(places: Iterable[str]) -> list[object]:
    return [_stamp(file) for place in places for file in _code(place)]


def _code(place: str) -> Iterator[str]:
    if not os.path.isdir(place):
        yield place
        return
    for folder, inner, files in os.walk(place):
        inner[:] = sorted(name for name in inner if name != "__pycache__")
        yield from (os.path.join(folder, name) for name in sorted(files) if name.endswith(".py"))


def _stamp(path: str) -> list[object]:
    """A file or folder as it is now; nothing else is asked of one that is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return [path]
    return [path, found.st_mtime_ns, found.st_size, found.st_ino]
