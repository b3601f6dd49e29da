"""Records of an SDF or MOL file, V2000 and V3000, which RDKit reads."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anylatent.modalities.molecule.files.rdkit_text import mol_of, molecule_of
from anylatent.modalities.molecule.files.records import (
    BadRecord,
    Lines,
    Parsed,
    number,
    short,
    whole,
)
from anylatent.modalities.shared.chemistry import chemistry

_COUNTS = re.compile(r"M  V30 COUNTS +(\d{1,9}) ")


def blocks(lines: Lines) -> Iterator[Lines]:
    """The records between lines of $$$$."""
    start = 0
    for place, line in enumerate([*lines, "$$$$"]):
        if line.startswith("$$$$"):
            if any(text.strip() for text in lines[start:place]):
                yield lines[start:place]
            start = place + 1


def parse(lines: Lines) -> Parsed:
    """The atoms and bonds of a record; as many as it announces."""
    ends = [place for place, line in enumerate(lines) if line.startswith("M  END")]
    if len(ends) > 1:
        raise BadRecord(f"{len(ends)} records run together: the line $$$$ between them is missing")
    mol = mol_of(
        lambda: chemistry().MolFromMolBlock("\n".join(lines) + "\n", sanitize=False, removeHs=False)
    )
    body = lines[4 : ends[0] if ends else len(lines)]
    molecule = molecule_of(mol, _announced(lines[3], body))
    return Parsed(lines[0].strip(), molecule, mol, lines[1][20:22].upper() == "2D")


def _announced(counts: str, body: Lines) -> int:
    """The number of atoms that the record says it has; BadRecord for one without a position.

    RDKit refuses more or fewer lines, and takes a blank position for the origin.
    """
    if "V3000" in counts:
        found = next((match for line in body if (match := _COUNTS.match(line))), None)
        return int(found[1]) if found else 0
    atoms = whole(counts[:3]) or 0
    for line in body[:atoms]:
        if not _is_atom(line):
            raise BadRecord(f"'{short(line)}' is no atom: wanted a position in columns 1 to 30")
    return atoms


def _is_atom(line: str) -> bool:
    return all(number(line[at : at + 10]) is not None for at in (0, 10, 20))
