"""The records of a file, and what can be wrong with one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from anylatent.modalities.molecule.elements import NUMBERS, SYMBOLS
from anylatent.modalities.molecule.molecule import Molecule

if TYPE_CHECKING:
    from rdkit.Chem import Mol

Lines: TypeAlias = Sequence[str]

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:(?:[eEdD]|\*\^)[+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)
_ISOTOPES = {"D": 1, "T": 1}


class Record(NamedTuple):
    """A molecule of a file. `smiles` is canonical, "" where the file has no (usable) bonds."""

    name: str
    molecule: Molecule
    smiles: str


class Parsed(NamedTuple):
    """What a record says: its title or "", its atoms, and RDKit's Mol where the file has bonds.

    `drawn`: it says of itself that it is a drawing. `complete`: a hydrogen atom that its bonds ask
    for may not be missing, or they lack their orders.
    """

    title: str
    molecule: Molecule
    mol: Mol | None = None
    drawn: bool = False
    complete: bool = False


Parse: TypeAlias = Callable[[Lines], Parsed]
"""The lines of a record to what it says. Raises BadRecord."""


class BadRecord(ValueError):
    """What is wrong with one record."""


def number(text: str) -> float | None:
    """A number as programs of chemistry write it, also 1.5D-3 or 1.5*^-3; None for other text.

    What is not finite is one: `checked` names it.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text.replace("*^", "e").replace("D", "e").replace("d", "e"))
    return float(text) if _NOT_FINITE.fullmatch(text) else None


def whole(text: str) -> int | None:
    """A count of at most nine digits; None for other text."""
    text = text.strip()
    return int(text) if _WHOLE.fullmatch(text) else None


def atomic_number(text: str) -> int:
    """Of a symbol in any case, D and T included, or of a number; raises BadRecord."""
    found = whole(text)
    symbol = text.capitalize()
    if found is None:
        found = _ISOTOPES.get(symbol) or NUMBERS.get(symbol, 0)
    if not 0 < found < len(SYMBOLS):
        raise BadRecord(f"'{short(text)}' is no known element")
    return found


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
