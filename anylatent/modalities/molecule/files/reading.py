"""Molecules from files: SDF, MOL, XYZ, PDB and mmCIF."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from anylatent.modalities.molecule.files import cif, ciftext, molfile, pdb, xyz
from anylatent.modalities.molecule.files.binarycif import read_categories
from anylatent.modalities.molecule.files.rdkit_text import smiles
from anylatent.modalities.molecule.files.records import BadRecord, Lines, Parsed, Record
from anylatent.modalities.molecule.files.rules import Rules
from anylatent.modalities.shared.reading import shown_lines
from anylatent.modalities.shared.strings import listed

Found: TypeAlias = Callable[[], Sequence[Any]]

SUFFIXES = (".sdf", ".mol", ".xyz", ".pdb", ".cif", ".mmcif", ".bcif")


class Reading(NamedTuple):
    """The molecules of a file, what is wrong with the others, and the names of those that
    `Rules` tells of, by rule; under "encoding" the lines that are no text."""

    records: list[Record]
    problems: list[str]
    told: dict[str, list[str]]


def read_molecules(path: str | Path) -> tuple[list[Record], list[str]]:
    """The molecules of a file with one of `SUFFIXES`, and what is wrong with the others.

    An .sdf has any number of records, an .xyz any number of frames, also extended ones and those
    of QM9; a .pdb is one molecule, or one for each MODEL or END; a .cif, .mmcif or .bcif has models
    of structures, or chemical components. Of alternate locations the one with the largest sum of
    occupancies is read. Atoms keep the order of the file, positions (float64) its digits. A record
    is named by its title, else by the file and, if there are several, its place from 1. Formal
    charges are the file's. SMILES are canonical, without explicit hydrogen; they are "" where the
    file has no bonds, where RDKit does not accept these, and for a .pdb whose bonds lack their
    orders.

    Each problem names the record and the reason: other atoms than it announces, an unknown element,
    a position that is not finite or 1000 Å from the others, a drawing in place of positions, or
    text that RDKit cannot parse. Text is UTF-8, or UTF-16 with a mark; a warning names lines that
    are neither, where nothing but a title or a remark is.

    Raises ValueError where not one molecule could be read, or for another kind of file.
    """
    records, problems, told = read(path, Rules())
    if not records:
        raise ValueError(f"no molecule in {path}: {listed(problems, most=3)}")
    if "encoding" in told:
        warnings.warn(f"no text in part: {listed(told['encoding'], most=3)}", stacklevel=2)
    return records, problems


def read(path: str | Path, rules: Rules) -> Reading:
    """As `read_molecules`, by the rules; also where no molecule is left.

    Raises OSError, and ValueError for another kind of file.
    """
    path = Path(path)
    reading = Reading([], [], {})
    try:
        split, parse = _kind(path, lambda: _lines(path, rules.encoding, reading))
        found = split()
    except BadRecord as error:
        reading.problems.append(f"{path.name}: {error}")
        return reading
    if not found:
        reading.problems.append(f"{path.name} is empty")
    for place, block in enumerate(found, start=1):
        name = path.stem if len(found) == 1 else f"{path.stem}_{place}"
        try:
            parsed, told = rules.apply(parse(block))
        except BadRecord as error:
            reading.problems.append(f"{path.name}, record {place} of {len(found)}: {error}")
            continue
        text = smiles(parsed.mol, parsed.complete)
        reading.records.append(Record(parsed.title or name, parsed.molecule, text))
        for rule in told:
            reading.told.setdefault(rule, []).append(reading.records[-1].name)
    return reading


def _kind(path: Path, lines: Callable[[], Lines]) -> tuple[Found, Callable[[Any], Parsed]]:
    """How a file with these lines falls into records, and how one is read."""
    kinds: dict[str, tuple[Found, Callable[[Any], Parsed]]] = {
        ".sdf": (lambda: list(molfile.blocks(lines())), molfile.parse),
        ".mol": (lambda: list(molfile.blocks(lines())), molfile.parse),
        ".xyz": (lambda: list(xyz.frames(lines())), xyz.parse),
        ".pdb": (lambda: list(pdb.blocks(lines())), pdb.parse),
        ".cif": (lambda: _text_entries(lines()), cif.parse),
        ".mmcif": (lambda: _text_entries(lines()), cif.parse),
        ".bcif": (lambda: _binary_entries(path), cif.parse),
    }
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{path} is none of {', '.join(SUFFIXES)}")
    return kinds[path.suffix.lower()]


def _text_entries(lines: Lines) -> list[cif.Entry]:
    return list(cif.entries(ciftext.blocks(lines)))


def _binary_entries(path: Path) -> list[cif.Entry]:
    try:
        return list(cif.entries(read_categories(path, ("atom_site", "chem_comp_atom"))))
    except ValueError as error:
        raise BadRecord(str(error)) from error


def _lines(path: Path, encoding: str, reading: Reading) -> Lines:
    """All lines of a file, of which those are told that are no text: a record that needs one as a
    number can't be read, a title or a remark has a sign in place of what is none."""
    found = list[str]()
    for number, (line, reason) in enumerate(shown_lines(path, encoding), 1):
        found.append(line)
        if reason:
            said = f"{path.name}, line {number}: {reason}"
            reading.told.setdefault("encoding", []).append(said)
    return found
