"""Real molecules in space, from SMILES by RDKit's distance geometry and force field."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from anylatent.modalities.molecule.molecule import Molecule

Built = tuple[Molecule, Any]


@cache
def _build(smiles: str, seed: int) -> Built:
    chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")
    from rdkit.Chem import AllChem

    mol = chem.AddHs(chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=seed) == 0
    if AllChem.MMFFHasAllMoleculeParams(mol):
        AllChem.MMFFOptimizeMolecule(mol)
    x = torch.from_numpy(mol.GetConformer().GetPositions()).float()
    z = torch.tensor([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    charge = torch.tensor([atom.GetFormalCharge() for atom in mol.GetAtoms()])
    return Molecule(x - x.mean(0), z, charge), mol


@pytest.fixture(scope="session")
def build() -> Callable[..., Built]:
    """`build(smiles, seed=7)`: the centred atoms, hydrogen included, and RDKit's own Mol."""
    return lambda smiles, seed=7: _build(smiles, seed)
