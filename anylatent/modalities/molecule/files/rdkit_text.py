"""What RDKit makes of text: atoms and bonds, or why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from anylatent.modalities.molecule.files.records import BadRecord, checked, short
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.shared.chemistry import chemistry, quiet

if TYPE_CHECKING:
    from rdkit.Chem import Mol


def mol_of(read: Callable[[], Mol | None]) -> Mol:
    """The Mol that `read` finds in a text; BadRecord where it finds none or objects."""
    with quiet():
        try:
            mol = read()
        except Exception as error:  # RDKit's come from C++ and are of many kinds
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise BadRecord(f"RDKit cannot parse it ({reason})") from error
    if mol is None:
        raise BadRecord("RDKit cannot parse it (cut short, or an element that does not exist?)")
    return mol


def molecule_of(mol: Mol, announced: int) -> Molecule:
    """The atoms of a Mol; raises BadRecord where they are not those of the text."""
    if not mol.GetNumAtoms() or not mol.GetNumConformers():
        raise BadRecord("no atoms" if not mol.GetNumAtoms() else "no positions")
    if mol.GetNumAtoms() != announced:
        raise BadRecord(f"{announced} atoms are there, of which RDKit reads {mol.GetNumAtoms()}")
    z = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    if 0 in z:
        label = mol.GetAtomWithIdx(z.index(0)).GetSymbol()
        raise BadRecord(f"atom {z.index(0) + 1} is of no known element ('{short(label)}')")
    charge = [atom.GetFormalCharge() for atom in mol.GetAtoms()]
    x = torch.from_numpy(mol.GetConformer().GetPositions()).double()
    return checked(Molecule(x, torch.tensor(z), torch.tensor(charge)))


def sanitised(mol: Mol | None) -> Mol | None:
    """A copy with valences, rings and aromatic bonds; None without bonds that RDKit accepts."""
    if mol is None or not mol.GetNumBonds():
        return None
    with quiet():
        try:
            mol = chemistry().Mol(mol)
            chemistry().SanitizeMol(mol)
            return mol
        except Exception:  # as above
            return None


def lacks(mol: Mol) -> bool:
    """Whether bonds of a sanitised Mol ask for atoms that are not there, or for a radical's."""
    return any(a.GetTotalNumHs() or a.GetNumRadicalElectrons() for a in mol.GetAtoms())


def smiles(mol: Mol | None, complete: bool = False) -> str:
    """Canonical SMILES; "" without bonds that RDKit accepts.

    `complete` also asks that no hydrogen is missing, a sign of bonds that lack their orders.
    """
    Chem, mol = chemistry(), sanitised(mol)
    if mol is None or (complete and lacks(mol)):
        return ""
    with quiet():
        try:
            Chem.AssignStereochemistryFrom3D(mol)
            return str(Chem.MolToSmiles(Chem.RemoveHs(mol)))
        except Exception:  # as above
            return ""
