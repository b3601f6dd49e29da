"""Molecules of RDKit from atoms in space: bonds by the usual distances, or by its own perception.

Bond orders go to RDKit and back as bond types, where an aromatic bond is one of its own: 1.5 is
never cast to an integer, which would make it single. Where whole numbers are needed, they are those
of a Kekulé structure. RDKit's messages are held back while these functions run, not beyond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anylatent.modalities.molecule.bonds import bond_orders
from anylatent.modalities.molecule.elements import SYMBOLS
from anylatent.modalities.molecule.molecule import Molecule

if TYPE_CHECKING:
    from rdkit.Chem import Mol, RWMol

_FACTOR = 1.15
"""Atoms nearer than this many sums of covalent radii are bonded. RDKit's own 1.3 also joins atoms
across small rings: it fails on 5 % of QM9, and 1.15 on 0.05 %."""

_ITERATIONS = 2000
"""Combinations of valences that RDKit may try for one molecule; hopeless ones could take hours."""

_EXACT = "donot_use_mm_for_euclid_dist"


def table_bonds(molecule: Molecule) -> Tensor:
    """Orders (n, n) int64 by distance: 0 none, 1, 2, 3; see `bonds`."""
    x = molecule.x.double()
    return bond_orders(torch.cdist(x, x, compute_mode=_EXACT), molecule.z)


def mol_by_table(molecule: Molecule, charged: bool = True) -> Mol | None:
    """A sanitised molecule with the bonds of `table_bonds`, or None where RDKit objects.

    All its atoms are explicit and in order, with a conformer in Å. `charged=False` leaves the
    formal charges out, as the literature does. RDKit adds (unseen) hydrogens to atoms that lack
    some, so "valid" is less than "stable".
    """
    return mol_of_bonds(molecule, table_bonds(molecule), charged)


def mol_of_bonds(molecule: Molecule, orders: Tensor, charged: bool = True) -> Mol | None:
    """As `mol_by_table`, with bonds of the orders (n, n) int64 given."""
    from rdkit import Chem, rdBase

    mol = _atoms(molecule, charged)
    if mol is None:
        return None
    types = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
    for i, j, order in _pairs(orders):
        mol.AddBond(i, j, types[order])
    with rdBase.BlockLogs():
        return _sanitised(mol.GetMol())


def mol_by_rdkit(molecule: Molecule) -> Mol | None:
    """A sanitised molecule with the bonds that RDKit perceives (rdDetermineBonds), or None.

    It finds aromatic rings and formal charges by itself, so that they add up to the charge of the
    molecule and every valence is filled; None where that is impossible. So hydrogens must be there,
    or it sees multiple bonds and ions. All atoms are explicit and in order, with a conformer in Å.
    """
    from rdkit import rdBase
    from rdkit.Chem import rdDetermineBonds

    mol = _atoms(molecule, charged=False)
    if mol is None:
        return None
    charge = int(molecule.charge.sum())
    with rdBase.BlockLogs():
        try:
            rdDetermineBonds.DetermineBonds(
                mol, charge=charge, covFactor=_FACTOR, useVdw=True, maxIterations=_ITERATIONS
            )
        except (ValueError, RuntimeError):
            return None
        found = _sanitised(mol.GetMol())
    return None if found is None or _open_valences(found) else found


def canonical(mol: Mol, hydrogens: bool = False) -> str:
    """Canonical SMILES of the largest fragment, without stereochemistry.

    `hydrogens` spells explicit hydrogen atoms out, which tells a molecule that lacks some from a
    whole one.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        fragments = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
        largest = max(fragments, key=Chem.Mol.GetNumAtoms) if len(fragments) > 1 else mol
        if not hydrogens:
            largest = Chem.Mol(largest)
            Chem.RemoveStereochemistry(largest)  # else hydrogens that define it stay
            largest = Chem.RemoveHs(largest)
        return str(Chem.MolToSmiles(largest, isomericSmiles=False))


def kekule_orders(mol: Mol) -> Tensor:
    """The orders (n, n) int64 of a Kekulé structure: aromatic bonds alternate between 1 and 2."""
    from rdkit import Chem

    mol = Chem.Mol(mol)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    orders = torch.zeros(mol.GetNumAtoms(), mol.GetNumAtoms(), dtype=torch.long)
    for bond in mol.GetBonds():
        i, j, order = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond.GetBondTypeAsDouble()
        if order != int(order):
            raise ValueError(
                f"the bond of atoms {i} and {j} has order {order}: no Kekulé structure"
            )
        orders[i, j] = orders[j, i] = int(order)
    return orders


def _atoms(molecule: Molecule, charged: bool) -> RWMol | None:
    """Atoms and a conformer without bonds; None for what is no element or no position."""
    from rdkit import Chem

    x, numbers = molecule.x, molecule.z.tolist()
    known = all(0 < number < len(SYMBOLS) for number in numbers)
    if not numbers or not known or not bool(x.isfinite().all()):
        return None
    mol = Chem.RWMol()
    for number, charge in zip(numbers, molecule.charge.tolist(), strict=True):
        atom = Chem.Atom(number)
        if charged:
            atom.SetFormalCharge(charge)
        mol.AddAtom(atom)
    conformer = Chem.Conformer(len(numbers))
    conformer.SetPositions(x.double().numpy())
    mol.AddConformer(conformer)
    return mol


def _pairs(orders: Tensor) -> list[list[int]]:
    """Rows (i, j, order) of the bonds, i < j."""
    i, j = orders.triu(1).nonzero(as_tuple=True)
    return torch.stack([i, j, orders[i, j]], 1).tolist()


def _sanitised(mol: Mol) -> Mol | None:
    from rdkit import Chem

    failed = Chem.SanitizeMol(mol, catchErrors=True)
    return None if failed else mol


def _open_valences(mol: Mol) -> bool:
    """Whether an atom lacks bonds: RDKit would count hydrogens or single electrons there."""
    return any(atom.GetTotalNumHs() or atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
