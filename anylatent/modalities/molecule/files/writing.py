"""Molecules to files: SDF, which RDKit writes, and XYZ, a line per atom without bonds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from anylatent.core.support.files import save_text
from anylatent.modalities.molecule.elements import NUMBERS, SYMBOLS
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.shared.chemistry import chemistry, quiet

if TYPE_CHECKING:
    from rdkit.Chem import Mol


def symbols(z: Tensor) -> list[str]:
    """The symbols of atomic numbers; "*" for what is none."""
    return [SYMBOLS[n] if 0 < n < len(SYMBOLS) else "*" for n in z.tolist()]


def formula(molecule: Molecule) -> str:
    """Carbon, hydrogen, then by symbol, and the charge: C2H7NO2, H4N+, C2O4-2; "*": unknown."""
    found = symbols(molecule.z)
    order = sorted(set(found), key=lambda s: (s != "C", s != "H", s))
    counts = ((symbol, found.count(symbol)) for symbol in order)
    text = "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in counts)
    charge = int(molecule.charge.sum())
    sign = {-1: "-", 0: "", 1: "+"}.get(charge, f"{charge:+d}")
    return text + sign


def write_xyz(molecule: Molecule, path: Path, comment: str = "") -> None:
    """One frame: the number of atoms, a comment line, then symbol and position (Å) of each atom.

    Bonds and formal charges are lost.
    """
    lines = [str(len(molecule)), " ".join(comment.split())]
    for symbol, position in zip(symbols(molecule.z), molecule.x.tolist(), strict=True):
        lines.append(f"{symbol:<2}" + "".join(f" {value:14.6f}" for value in position))
    save_text(Path(path), "\n".join(lines) + "\n")


def write_sdf(
    molecule: Molecule, mol: Mol | None, path: Path, bonds: str = "distance table"
) -> None:
    """One record with positions and formal charges, V2000, or V3000 where that has no room.

    Bonds are those of `mol`, whose atoms are the molecule's in their order; None writes atoms
    alone. The data field `bonds` says where they are from ("none" without `mol`), `formula` what
    the molecule is made of. The title is the name of the file.
    """
    Chem, path = chemistry(), Path(path)
    bare = mol is None
    mol = _atoms(molecule) if mol is None else Chem.Mol(mol)
    if mol.GetNumAtoms() != len(molecule):
        raise ValueError(f"a Mol of {mol.GetNumAtoms()} atoms for {len(molecule)} atoms")
    _place(mol, molecule.x)
    mol.SetProp("_Name", path.stem)
    mol.UpdatePropertyCache(strict=False)
    text = _block(mol)
    fields = {"bonds": "none" if bare else bonds, "formula": formula(molecule)}
    text += "".join(f">  <{key}>\n{value}\n\n" for key, value in fields.items())
    save_text(path, text + "$$$$\n")


def _atoms(molecule: Molecule) -> Mol:
    Chem = chemistry()
    mol = Chem.RWMol()
    for symbol, charge in zip(symbols(molecule.z), molecule.charge.tolist(), strict=True):
        atom = Chem.Atom(NUMBERS[symbol])
        atom.SetFormalCharge(charge)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    return mol.GetMol()  # type: ignore[no-any-return]


def _place(mol: Mol, x: Tensor) -> None:
    conformer = chemistry().Conformer(len(x))
    conformer.Set3D(True)
    for index, position in enumerate(x.double().tolist()):
        conformer.SetAtomPosition(index, position)
    mol.RemoveAllConformers()
    mol.AddConformer(conformer)


def _block(mol: Mol) -> str:
    """The mol block, with alternating bonds in rings where RDKit can assign them."""
    Chem = chemistry()
    with quiet():
        try:
            return str(Chem.MolToMolBlock(mol))
        except ValueError:  # rings that have no alternating bonds keep the aromatic ones
            return str(Chem.MolToMolBlock(mol, kekulize=False))
