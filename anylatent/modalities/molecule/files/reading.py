"""Molecules from files: SDF, MOL, XYZ and PDB."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from anylatent.modalities.molecule.files import xyz
from anylatent.modalities.molecule.files.records import (
    BadRecord,
    Lines,
    Parse,
    Record,
    Split,
    checked,
    short,
)
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.shared.chemistry import chemistry, quiet
from anylatent.modalities.shared.strings import listed

if TYPE_CHECKING:
    from rdkit.Chem import Mol

SUFFIXES = (".sdf", ".mol", ".xyz", ".pdb")
_POSITION = re.compile(r"(?=.{24})(\s*[+-]?(\d+\.?\d*|\.\d+)){3}")


def read_molecules(path: str | Path) -> tuple[list[Record], list[str]]:
    """The molecules of a .sdf, .mol, .xyz or .pdb file, and what is wrong with the others.

    An .sdf has any number of records, an .xyz any number of frames; a .pdb is one molecule, or
    one for each MODEL. Atoms keep the order of the file. A record is named by its title, else by
    the file and, if there are several, its place from 1. Formal charges are the file's. SMILES are
    canonical, without explicit hydrogen; they are "" where the file has no bonds, where RDKit does
    not accept these, and for a .pdb whose bonds lack their orders.

    Each problem names the record and the reason: no atoms, an unknown element, a position that is
    not finite, a 2D drawing in place of positions, or text that RDKit cannot parse.

    Raises ValueError where not one molecule could be read, or for another kind of file.
    """
    path = Path(path)
    blocks, parse = _kind(path)
    with open(path, encoding="utf-8", errors="replace") as file:
        found = list(blocks([line.rstrip("\r\n") for line in file]))
    records, problems = [], []
    for place, block in enumerate(found, start=1):
        name = path.stem if len(found) == 1 else f"{path.stem}_{place}"
        try:
            title, molecule, smiles = parse(block)
            records.append(Record(title or name, molecule, smiles))
        except BadRecord as error:
            problems.append(f"{path.name}, record {place} of {len(found)}: {error}")
    if not records:
        raise ValueError(
            f"no molecule in {path}: {listed(problems, most=3) or f'{path.name} is empty'}"
        )
    return records, problems


def _kind(path: Path) -> tuple[Split, Parse]:
    kinds: dict[str, tuple[Split, Parse]] = {
        ".sdf": (_sdf_blocks, _parse_mol),
        ".mol": (_sdf_blocks, _parse_mol),
        ".xyz": (xyz.frames, xyz.parse),
        ".pdb": (_pdb_blocks, _parse_pdb),
    }
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{path} is none of {', '.join(SUFFIXES)}")
    return kinds[path.suffix.lower()]


def _sdf_blocks(lines: Lines) -> Iterator[Lines]:
    start = 0
    for place, line in enumerate([*lines, "$$$$"]):
        if line.startswith("$$$$"):
            if any(text.strip() for text in lines[start:place]):
                yield lines[start:place]
            start = place + 1


def _parse_mol(lines: Lines) -> tuple[str, Molecule, str]:
    with quiet():
        mol = chemistry().MolFromMolBlock("\n".join(lines) + "\n", sanitize=False, removeHs=False)
    if mol is None:
        raise BadRecord("RDKit cannot parse it (cut short, or an element that does not exist?)")
    molecule = _molecule(mol)
    flag = lines[1][20:22].upper()
    if _is_drawing(mol, molecule, flag):
        raise BadRecord("a 2D drawing (all z are zero), not positions in space")
    return lines[0].strip(), molecule, _smiles(mol)


def _is_drawing(mol: Mol, molecule: Molecule, flag: str) -> bool:
    """Whether a flat record is one by its flag, by points in one place or by a flat CX4."""
    if bool(molecule.x[:, 2].any()) or len(molecule) == 1:
        return False
    crowded = (a for a in mol.GetAtoms() if a.GetAtomicNum() in (6, 7, 14) and a.GetDegree() >= 4)
    same_place = not bool((molecule.x - molecule.x[:1]).any())
    return flag == "2D" or same_place or next(crowded, None) is not None


def _molecule(mol: Mol) -> Molecule:
    """The atoms of a Mol; raises BadRecord where they are no molecule in space."""
    if not mol.GetNumAtoms() or not mol.GetNumConformers():
        raise BadRecord("no atoms" if not mol.GetNumAtoms() else "no positions")
    z = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    if 0 in z:
        label = mol.GetAtomWithIdx(z.index(0)).GetSymbol()
        raise BadRecord(f"atom {z.index(0) + 1} is of no known element ('{label}')")
    charge = [atom.GetFormalCharge() for atom in mol.GetAtoms()]
    x = torch.from_numpy(mol.GetConformer().GetPositions()).float()
    return checked(Molecule(x, torch.tensor(z), torch.tensor(charge)))


def _smiles(mol: Mol, complete: bool = False) -> str:
    """Canonical SMILES; "" without bonds that RDKit accepts.

    `complete` also asks that no hydrogen is missing, a sign of bonds that lack their orders.
    """
    Chem = chemistry()
    if not mol.GetNumBonds():
        return ""
    mol = Chem.Mol(mol)
    with quiet():
        try:
            Chem.SanitizeMol(mol)
            if complete and any(
                a.GetTotalNumHs() or a.GetNumRadicalElectrons() for a in mol.GetAtoms()
            ):
                return ""
            Chem.AssignStereochemistryFrom3D(mol)
            return str(Chem.MolToSmiles(Chem.RemoveHs(mol)))
        except ValueError:  # RDKit's own errors are of this kind
            return ""


def _pdb_blocks(lines: Lines) -> Iterator[Lines]:
    """The file, or each of its models with its bonds and those outside of all models."""
    models: list[list[str]] = []
    shared, inside = list[str](), False
    for line in lines:
        if line.startswith(("MODEL ", "ENDMDL")):
            inside = line.startswith("MODEL ")
            models += [[]] if inside else []
        elif line.startswith(("ATOM ", "HETATM", "CONECT")):
            (models[-1] if inside else shared).append(line)
    if models:
        yield from ([*model, *(text for text in shared if text[0] == "C")] for model in models)
    elif any(line.strip() for line in lines):
        yield shared


def _parse_pdb(lines: Lines) -> tuple[str, Molecule, str]:
    atoms = [line for line in lines if not line.startswith("CONECT")]
    if not atoms:
        raise BadRecord("no atoms")
    for line in atoms:
        if not _POSITION.match(line[30:54]):
            raise BadRecord(f"'{short(line)}' is no atom: wanted a position in columns 31 to 54")
    with quiet():
        mol = chemistry().MolFromPDBBlock(
            "\n".join(lines) + "\n", sanitize=False, removeHs=False, proximityBonding=False
        )
    if mol is None:
        raise BadRecord("RDKit cannot parse it (cut short, or an element that does not exist?)")
    return "", _molecule(mol), _smiles(mol, complete=True)
