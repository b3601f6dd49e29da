"""Models of a PDB file, of whose alternate locations one is taken; RDKit reads the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anylatent.modalities.molecule.files.alternates import Site, taken
from anylatent.modalities.molecule.files.rdkit_text import mol_of, molecule_of
from anylatent.modalities.molecule.files.records import BadRecord, Lines, Parsed, number, short
from anylatent.modalities.shared.chemistry import chemistry

_ATOM = ("ATOM ", "HETATM")
_NO_ATOM = ("ANISOU", "SIGATM", "SIGUIJ", "REMARK", "TITLE", "HEADER", "USER", "CRYST1")
_POSITION = re.compile(r"(?:-?\d{1,4}\.\d{3}\s*){3}", re.ASCII)
_INSIDE = re.compile("ATOM  |HETATM")
_EVERYTHING = 1  # of RDKit: also alternates and pseudo-atoms, which it leaves out otherwise
_OUTSIDE = "outside of all models"


def blocks(lines: Lines) -> Iterator[Lines]:
    """What ends with END, or each of its models with its bonds and those outside of all models."""
    start, found = 0, False
    for place, line in enumerate([*lines, "END"]):
        if line.rstrip() == "END":
            chunk = lines[start:place]
            start = place + 1
            if any(text.startswith(_ATOM) or _is_stray(text) for text in chunk):
                found = True
                yield from _models(chunk)
    if not found and any(line.strip() for line in lines):
        yield []


def _models(lines: Lines) -> Iterator[Lines]:
    models: list[list[str]] = []
    shared, inside, lost = list[str](), False, False
    for line in lines:
        if line.startswith(("MODEL ", "ENDMDL")):
            begins = line.startswith("MODEL ")
            lost |= not (begins or inside)
            inside = begins
            models += [[]] if inside else []
        elif line.startswith((*_ATOM, "CONECT")) or _is_stray(line):
            (models[-1] if inside else shared).append(line)
    bonds = [line for line in shared if line.startswith("CONECT")]
    yield from ([*model, *bonds] for model in models)
    if not models and not lost:
        yield shared
    elif len(shared) > len(bonds):
        yield [_OUTSIDE, *shared]


def parse(lines: Lines) -> Parsed:
    """The atoms of a model, and the bonds of its CONECT lines."""
    atoms = [line for line in lines if not line.startswith("CONECT")]
    if not atoms:
        raise BadRecord("no atoms")
    if atoms[0] == _OUTSIDE:
        raise BadRecord(f"{len(atoms) - 1} atoms stand outside of all models")
    for line in atoms:
        if not line.startswith(_ATOM) or _is_stray(line):
            raise BadRecord(f"'{short(line)}' has a position, but is no line of one ATOM or HETATM")
        if not _is_placed(line):
            raise BadRecord(f"'{short(line)}' is no atom: wanted a position in columns 31 to 54")
    kept = [_bare(atoms[row]) for row in taken([_site(line) for line in atoms])]
    bonds = [line for line in lines if line.startswith("CONECT")]
    text = "\n".join([*kept, *bonds]) + "\n"
    mol = mol_of(
        lambda: chemistry().MolFromPDBBlock(
            text, sanitize=False, removeHs=False, proximityBonding=False, flavor=_EVERYTHING
        )
    )
    return Parsed("", molecule_of(mol, len(kept)), mol, complete=True)


def _is_placed(line: str) -> bool:
    return len(line) >= 54 and all(number(line[at : at + 8]) is not None for at in (30, 38, 46))


def _is_stray(line: str) -> bool:
    """A line of no kind that has a position, or one with an atom behind it: an atom is lost."""
    if any(_is_placed(line[found.start() :]) for found in _INSIDE.finditer(line, 1)):
        return True
    return not line.startswith((*_ATOM, *_NO_ATOM)) and bool(_POSITION.search(line))


def _site(line: str) -> Site:
    """The occupancy is 1 where none is given."""
    letter, text = line[16].strip(), line[54:60]
    occupancy = number(text) if text.strip() else 1.0
    if letter and (occupancy is None or occupancy != occupancy):
        raise BadRecord(f"'{short(line)}' has an alternate, but '{short(text)}' is no occupancy")
    return Site(line[21:27], line[17:20], line[12:16], letter, occupancy or 0.0)


def _bare(line: str) -> str:
    """Without letter, occupancy and temperature, which were read or do not matter."""
    return f"{line[:16]} {line[17:54]}{'':12}{line[66:]}"
