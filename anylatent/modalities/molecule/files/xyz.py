"""Frames of an XYZ file: the number of atoms, a comment, and a line for each atom."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from anylatent.modalities.molecule.elements import NUMBERS, SYMBOLS
from anylatent.modalities.molecule.files.records import BadRecord, Lines, checked, short
from anylatent.modalities.molecule.molecule import Molecule


def frames(lines: Lines) -> Iterator[Lines]:
    """Frames of as many lines as each announces; where that fails, the rest is one block."""
    place = 0
    while place < len(lines):
        if not lines[place].strip():
            place += 1
            continue
        count = lines[place].strip()
        end = place + 2 + int(count) if count.isdecimal() else len(lines)
        yield lines[place:end]
        place = end


def parse(lines: Lines) -> tuple[str, Molecule, str]:
    """The molecule of a frame, which has neither title nor SMILES."""
    count = lines[0].strip()
    if not count.isdecimal() or int(count) == 0:
        raise BadRecord(f"'{short(count)}' is no number of atoms")
    if len(lines) != int(count) + 2:
        raise BadRecord(f"{count} atoms are announced, {max(0, len(lines) - 2)} are there")
    atoms = [_parse_atom(line) for line in lines[2:]]
    z = torch.tensor([number for number, _ in atoms])
    x = torch.tensor([position for _, position in atoms])
    return "", checked(Molecule(x, z, torch.zeros_like(z))), ""


def _parse_atom(line: str) -> tuple[int, list[float]]:
    """Symbol or atomic number, then three numbers; more columns are left out."""
    words = line.split()
    try:
        position = [float(word) for word in words[1:4]]
    except ValueError:
        position = []
    if len(position) != 3:
        raise BadRecord(f"'{short(line)}' is no atom: wanted a symbol and three numbers")
    number = int(words[0]) if words[0].isdecimal() else NUMBERS.get(words[0].capitalize(), 0)
    if not 0 < number < len(SYMBOLS):
        raise BadRecord(f"'{short(words[0])}' is no known element")
    return number, position
