"""What the folders on the way to a file mean: parts of the data on top, else classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anylatent.modalities.shared.report import Report

TRAIN, HELD_OUT = "train", "held_out"
PARTS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "test", "testing", "eval"), HELD_OUT),
}
"""Names of folders on top that say what their files are for, in any case."""


@dataclass(frozen=True)
class Layout:
    """The part of each file ("" where no folder says one), and its path below that of the part.

    `given` tells whether the folders make the split. A file beside such folders has None.
    """

    parts: list[str | None]
    inner: list[Path]

    @property
    def given(self) -> bool:
        return any(self.parts)


def layout(names: Sequence[Path]) -> Layout:
    """How files, by their paths below the root, lie in folders.

    `train` beside `test`, `val` or the like is a split, as is a single one of them with nothing
    beside it, which then holds everything. `train` beside `car` and `bus` is a class. A folder
    around the whole split is none.
    """
    found, below = _layout(names), names
    while not found.given and len(_tops(below)) == 1 and "" not in _tops(below):
        below = [Path(*name.parts[1:]) for name in below]
        if (deeper := _layout(below)).given:
            return deeper
    return found


def _layout(names: Sequence[Path]) -> Layout:
    tops = _tops(names)
    known = {top: PARTS[top.casefold()] for top in tops if top.casefold() in PARTS}
    given = set(known.values()) == {TRAIN, HELD_OUT}
    if not given and set(known) != tops:
        return Layout([""] * len(names), list(names))
    parts: list[str | None] = []
    for name in names:
        part = known.get(name.parts[0]) if len(name.parts) > 1 else None
        parts.append(part if given else "")
    return Layout(parts, [Path(*name.parts[1:]) if len(name.parts) > 1 else name for name in names])


def _tops(names: Sequence[Path]) -> set[str]:
    """The folders on top, "" for files that are in none."""
    return {name.parts[0] if len(name.parts) > 1 else "" for name in names}


def note_split(names: Sequence[Path], report: Report) -> None:
    """Tells of folders `train`, `test` and the like where they are read as one, and split anew."""
    found = layout(names)
    if found.given:
        pairs = zip(names, found.inner, strict=True)
        for top in dict.fromkeys(name.parts[-len(inner.parts) - 1] for name, inner in pairs):
            report.note("folders that are mixed and split anew, whatever they are called", top)


def note_folders(found: Layout, report: Report) -> None:
    """Tells of folders that may mean something else than they are taken for."""
    _note_inner(found, report)
    _note_alike(found.inner, report)


def _note_inner(found: Layout, report: Report) -> None:
    """Tells of folders `train` and `test` that lie below others, where they are no split."""
    names = (folder for name in found.inner for folder in name.parts[:-1])
    inner = [name for name in dict.fromkeys(names) if name.casefold() in PARTS]
    if {PARTS[name.casefold()] for name in inner} == {TRAIN, HELD_OUT}:
        for name in inner:
            report.note("folders below others, which are no split there and are mixed", name)


def _note_alike(names: Sequence[Path], report: Report) -> None:
    """Tells of folders that are classes of their own, though a person reads the same name, as they
    were copied from systems that write one letter by other signs."""
    tops = sorted({name.parts[0] for name in names if len(name.parts) > 1})
    read = [unicodedata.normalize("NFC", top) for top in tops]
    for top, name in zip(tops, read, strict=True):
        if read.count(name) > 1:
            report.note("folders that read alike and are classes of their own", top, ascii(top))
