"""Frames of an XYZ file: the number of atoms, a comment, and a line for each atom.

Extended XYZ says in its comment which columns the lines have (`Properties=species:S:1:pos:R:3`).
The files of QM9 (doi 10.1038/sdata.2014.22) have three more lines after the atoms: frequencies,
SMILES and InChI.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from anylatent.modalities.molecule.files.records import (
    BadRecord,
    Lines,
    Parsed,
    atomic_number,
    checked,
    number,
    short,
    whole,
)
from anylatent.modalities.molecule.molecule import Molecule

_PROPERTIES = re.compile(r"(?:^|\s)\"?properties\"?\s*=\s*\"?([^\s\"]*)", re.IGNORECASE)
_TAIL = 3


class _Columns(NamedTuple):
    """Where a line has the symbol and the first of three numbers; `width` 0: and any more."""

    species: int = 0
    position: int = 1
    width: int = 0


def frames(lines: Lines) -> Iterator[Lines]:
    """Frames from one lone count to the next, so that none takes atoms of another."""
    place = 0
    while place < len(lines):
        if not lines[place].strip():
            place += 1
            continue
        announced = place + 2 + (whole(lines[place]) or 0)
        end = min(place + 2, len(lines))
        while end < len(lines) and whole(lines[end]) is None:
            if end >= announced and not lines[end].strip():
                break
            end += 1
        yield lines[place:end]
        place = end


def parse(lines: Lines) -> Parsed:
    """The molecule of a frame, which has no title and no bonds."""
    count = whole(lines[0])
    if not count:
        raise BadRecord(f"'{short(lines[0])}' is no number of atoms")
    rows = lines[2:-_TAIL] if _is_tail(lines[2 + count :]) else lines[2:]
    if len(rows) != count:
        raise BadRecord(f"{count} atoms are announced, {len(rows)} are there")
    words = [row.split() for row in rows]
    columns = _columns(lines[1])
    if not columns.width and count > 2 and [row[:1] for row in words] == _counted(count):
        raise BadRecord("its first column counts the atoms: wanted their symbols")
    atoms = [_atom(row, columns) for row in words]
    z = torch.tensor([found for found, _ in atoms])
    x = torch.tensor([position for _, position in atoms], dtype=torch.float64)
    return Parsed("", checked(Molecule(x, z, torch.zeros_like(z))))


def _is_tail(lines: Lines) -> bool:
    return len(lines) == _TAIL and lines[-1].lstrip().startswith("InChI=")


def _counted(count: int) -> list[list[str]]:
    return [[str(place)] for place in range(1, count + 1)]


def _columns(comment: str) -> _Columns:
    """The columns that the comment of an extended XYZ names, else symbol, x, y, z."""
    found = _PROPERTIES.search(comment)
    if not found:
        return _Columns()
    words = found[1].split(":")
    starts: dict[tuple[str, int], int] = {}
    width = 0
    for name, size in zip(words[::3], words[2::3], strict=False):
        columns = whole(size)
        if not columns:
            break
        starts.setdefault((name.lower(), columns), width)
        width += columns
    species = starts.get(("species", 1), starts.get(("z", 1)))
    position = starts.get(("pos", 3))
    if len(words) % 3 or species is None or position is None:
        raise BadRecord(
            f"'{short(found[0])}' has no species:S:1 and pos:R:3 among its columns name:kind:size"
        )
    return _Columns(species, position, width)


def _atom(words: Sequence[str], columns: _Columns) -> tuple[int, list[float]]:
    """Symbol or atomic number, and three numbers."""
    at = columns.position
    position = [value for word in words[at : at + 3] if (value := number(word)) is not None]
    if len(position) != 3 or (columns.width and len(words) != columns.width):
        wanted = f"{columns.width} columns" if columns.width else "a symbol and three numbers"
        raise BadRecord(f"'{short(' '.join(words))}' is no atom: wanted {wanted}")
    return atomic_number(words[columns.species]), position
