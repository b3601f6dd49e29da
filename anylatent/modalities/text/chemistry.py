"""What RDKit says of a SMILES: whether it is a molecule, its canonical form, and its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anylatent.modalities.shared import chemistry as shared

CLASSES: Mapping[str, Sequence[str]] = {
    "rings": ("0", "1", "2", "3 or more"),
    "aromatic": ("no", "yes"),
    "hetero": ("0", "1", "2", "3 or more"),
}
"""Rings (of the smallest set), whether there is an aromatic atom, and atoms of N, O or F."""

_HETERO = (7, 8, 9)
_MOST = 3


def chemistry() -> Any:
    """RDKit's `Chem`, or an error that says how to get it."""
    return shared.chemistry("reading SMILES")


def parse(smiles: str) -> Any | None:
    """RDKit's Mol, with at least one atom; None for what is no molecule."""
    chem = chemistry()
    with shared.quiet():
        mol = chem.MolFromSmiles(smiles)
    return mol if mol is not None and mol.GetNumAtoms() else None


def canonical(smiles: str) -> str | None:
    """The one SMILES that all spellings of a molecule share; None for what is none."""
    mol = parse(smiles)
    return None if mol is None else str(chemistry().MolToSmiles(mol))


def attributes(smiles: str) -> dict[str, int] | None:
    """The index of each of `CLASSES`; None for what is no molecule."""
    mol = parse(smiles)
    return None if mol is None else classes_of(mol)


def classes_of(mol: Any) -> dict[str, int]:
    """The index of each of `CLASSES` of RDKit's Mol."""
    atoms = list(mol.GetAtoms())
    return {
        "rings": min(mol.GetRingInfo().NumRings(), _MOST),
        "aromatic": int(any(atom.GetIsAromatic() for atom in atoms)),
        "hetero": min(sum(atom.GetAtomicNum() in _HETERO for atom in atoms), _MOST),
    }
