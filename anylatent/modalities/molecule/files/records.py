"""The records of a file, and what can be wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from anylatent.modalities.molecule.molecule import Molecule

Lines: TypeAlias = Sequence[str]
Split: TypeAlias = Callable[[Lines], Iterator[Lines]]
"""The lines of a file to those of its records."""
Parse: TypeAlias = Callable[[Lines], tuple[str, Molecule, str]]
"""The lines of a record to its title, molecule and SMILES. Raises BadRecord."""


class Record(NamedTuple):
    """A molecule of a file. `smiles` is canonical, "" where the file has no (usable) bonds."""

    name: str
    molecule: Molecule
    smiles: str


class BadRecord(ValueError):
    """What is wrong with one record."""


def checked(molecule: Molecule) -> Molecule:
    """The molecule, or BadRecord for a position that is not finite."""
    good = molecule.x.isfinite().all(1)
    if not bool(good.all()):
        raise BadRecord(f"the position of atom {int((~good).nonzero()[0]) + 1} is not finite")
    return molecule


def short(text: str) -> str:
    """At most thirty characters that can be printed."""
    text = "".join(c if c.isprintable() else "?" for c in text.strip())
    return text if len(text) <= 30 else text[:30] + "…"
