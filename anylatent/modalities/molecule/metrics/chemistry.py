"""What is asked of one molecule: are its atoms stable, is it valid, connected, known?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anylatent.core.support.progress import track
from anylatent.modalities.molecule.bonds import stable
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.perception import (
    canonical,
    mol_by_rdkit,
    mol_of_bonds,
    table_bonds,
)
from anylatent.modalities.shared.strings import key

NEED_HYDROGENS = (
    "atom_stability",
    "molecule_stability",
    "molecule_stability_charged",
    "valid_rdkit",
)
"""Figures that mean nothing of data without hydrogens."""


@dataclass(frozen=True)
class Verdict:
    """Answers about one molecule, with bonds by the usual distance table unless said otherwise.

    `smiles` is that of the largest fragment with all its hydrogens, "" for an invalid molecule.
    """

    atoms: int
    stable_atoms: int
    stable: bool
    stable_charged: bool
    smiles: str
    valid_charged: bool
    valid_rdkit: bool
    connected: bool


def judge(molecule: Molecule) -> Verdict:
    """All answers about one molecule, about half a millisecond for ten heavy atoms."""
    orders = table_bonds(molecule)
    good = stable(orders, molecule.z)
    charged = bool((molecule.charge != 0).any())
    smiles = _smiles(molecule, orders)
    valid_charged = mol_of_bonds(molecule, orders) is not None if charged else smiles != ""
    return Verdict(
        atoms=len(molecule),
        stable_atoms=int(good.sum()),
        stable=bool(good.all()),
        stable_charged=bool(stable(orders, molecule.z, molecule.charge).all()),
        smiles=smiles,
        valid_charged=valid_charged,
        valid_rdkit=_perceived(molecule),
        connected=connected(orders),
    )


def stability(molecules: Iterable[Molecule]) -> tuple[float, float]:
    """The share of stable atoms among all, and of molecules whose atoms are all stable."""
    good = [stable(table_bonds(molecule), molecule.z) for molecule in molecules]
    return float(torch.cat(good).double().mean()), sum(bool(g.all()) for g in good) / len(good)


def connected(orders: Tensor) -> bool:
    """Whether bonds of orders (n, n) lead from every atom to every other."""
    reached = torch.zeros(len(orders), dtype=torch.bool)
    reached[0] = True
    count = 0
    while count < (count := int(reached.sum())):
        reached = reached | (orders[reached] > 0).any(0)
    return count == len(orders)


def shares(verdicts: Sequence[Verdict], known: frozenset[int]) -> dict[str, float]:
    """The figures of many verdicts; `known` are the keys of molecules that are not novel."""
    valid = [verdict.smiles for verdict in verdicts if verdict.smiles]
    unique = set(valid)
    row = {
        "atom_stability": sum(v.stable_atoms for v in verdicts) / sum(v.atoms for v in verdicts),
        "molecule_stability": _share(v.stable for v in verdicts),
        "molecule_stability_charged": _share(v.stable_charged for v in verdicts),
        "valid": len(valid) / len(verdicts),
        "valid_charged": _share(v.valid_charged for v in verdicts),
        "valid_rdkit": _share(v.valid_rdkit for v in verdicts),
        "valid_and_unique": len(unique) / len(verdicts),
    }
    if valid:
        row["unique"] = len(unique) / len(valid)
        row["novel"] = _share(key(smiles) not in known for smiles in unique)
    return {**row, "connected": _share(v.connected for v in verdicts)}


def keys(molecules: Iterable[Molecule], count: int) -> Tensor:
    """The keys of the valid ones among `count` molecules, sorted, each once, int64."""
    found = set()
    for molecule in track(molecules, "SMILES of the training molecules", count):
        smiles = _smiles(molecule, table_bonds(molecule))
        if smiles:
            found.add(key(smiles))
    return torch.tensor(sorted(found), dtype=torch.long)


def _smiles(molecule: Molecule, orders: Tensor) -> str:
    mol = mol_of_bonds(molecule, orders, charged=False)
    return "" if mol is None else canonical(mol, hydrogens=True)


def _perceived(molecule: Molecule) -> bool:
    """Whether RDKit finds bonds that fill every valence and join all atoms."""
    from rdkit import Chem

    mol = mol_by_rdkit(molecule)
    return mol is not None and len(Chem.GetMolFrags(mol)) == 1


def _share(answers: Iterable[bool]) -> float:
    listed = list(answers)
    return sum(listed) / len(listed)
