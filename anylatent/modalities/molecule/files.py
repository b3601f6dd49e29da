"""Molecules from and to files: SDF, MOL, XYZ and PDB.

Positions are in Å. RDKit reads and writes everything but XYZ, a line per atom without bonds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from anylatent.core.support.files import save_text
from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.molecule.elements import NUMBERS, SYMBOLS
from anylatent.modalities.molecule.molecule import Molecule

if TYPE_CHECKING:
    from rdkit.Chem import Mol

SUFFIXES = (".sdf", ".mol", ".xyz", ".pdb")
_POSITION = re.compile(r"(?=.{24})(\s*[+-]?(\d+\.?\d*|\.\d+)){3}")


class Record(NamedTuple):
    """A molecule of a file. `smiles` is canonical, "" where the file has no (usable) bonds."""

    name: str
    molecule: Molecule
    smiles: str


class _BadRecord(ValueError):
    """What is wrong with one record."""


def chemistry() -> Any:
    """RDKit's `Chem`, or an error that says how to get it."""
    try:
        from rdkit import Chem
    except ImportError as error:
        raise MissingPackage("rdkit", "reading, writing and drawing molecules") from error
    return Chem


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


# ---- writing ----------------------------------------------------------------------------------
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


def quiet() -> Any:
    """Holds back what RDKit prints: it goes past Python to the terminal."""
    chemistry()
    from rdkit import rdBase

    return rdBase.BlockLogs()


# ---- reading ----------------------------------------------------------------------------------
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
    kinds: dict[str, tuple[_Split, _Parse]] = {
        ".sdf": (_sdf_blocks, _parse_mol),
        ".mol": (_sdf_blocks, _parse_mol),
        ".xyz": (_xyz_blocks, _parse_xyz),
        ".pdb": (_pdb_blocks, _parse_pdb),
    }
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{path} is none of {', '.join(SUFFIXES)}")
    blocks, parse = kinds[path.suffix.lower()]
    with open(path, encoding="utf-8", errors="replace") as file:
        found = list(blocks([line.rstrip("\r\n") for line in file]))
    records, problems = [], []
    for place, block in enumerate(found, start=1):
        name = path.stem if len(found) == 1 else f"{path.stem}_{place}"
        try:
            title, molecule, smiles = parse(block)
            records.append(Record(title or name, molecule, smiles))
        except _BadRecord as error:
            problems.append(f"{path.name}, record {place} of {len(found)}: {error}")
    if not records:
        shown = "; ".join(problems[:3]) or f"{path.name} is empty"
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"no molecule in {path}: {shown}{more}")
    return records, problems


_Split = Callable[[Sequence[str]], Iterator[Sequence[str]]]
_Parse = Callable[[Sequence[str]], tuple[str, Molecule, str]]


def _sdf_blocks(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    start = 0
    for place, line in enumerate([*lines, "$$$$"]):
        if line.startswith("$$$$"):
            if any(text.strip() for text in lines[start:place]):
                yield lines[start:place]
            start = place + 1


def _parse_mol(lines: Sequence[str]) -> tuple[str, Molecule, str]:
    with quiet():
        mol = chemistry().MolFromMolBlock("\n".join(lines) + "\n", sanitize=False, removeHs=False)
    if mol is None:
        raise _BadRecord("RDKit cannot parse it (cut short, or an element that does not exist?)")
    molecule = _molecule(mol)
    flag = lines[1][20:22].upper()
    if _is_drawing(mol, molecule, flag):
        raise _BadRecord("a 2D drawing (all z are zero), not positions in space")
    return lines[0].strip(), molecule, _smiles(mol)


def _is_drawing(mol: Mol, molecule: Molecule, flag: str) -> bool:
    """Whether a flat record is one by its flag, by points in one place or by a flat CX4."""
    if bool(molecule.x[:, 2].any()) or len(molecule) == 1:
        return False
    crowded = (a for a in mol.GetAtoms() if a.GetAtomicNum() in (6, 7, 14) and a.GetDegree() >= 4)
    same_place = not bool((molecule.x - molecule.x[:1]).any())
    return flag == "2D" or same_place or next(crowded, None) is not None


def _molecule(mol: Mol) -> Molecule:
    """The atoms of a Mol; raises _BadRecord where they are no molecule in space."""
    if not mol.GetNumAtoms() or not mol.GetNumConformers():
        raise _BadRecord("no atoms" if not mol.GetNumAtoms() else "no positions")
    z = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    if 0 in z:
        label = mol.GetAtomWithIdx(z.index(0)).GetSymbol()
        raise _BadRecord(f"atom {z.index(0) + 1} is of no known element ('{label}')")
    charge = [atom.GetFormalCharge() for atom in mol.GetAtoms()]
    x = torch.from_numpy(mol.GetConformer().GetPositions()).float()
    return _checked(Molecule(x, torch.tensor(z), torch.tensor(charge)))


def _checked(molecule: Molecule) -> Molecule:
    good = molecule.x.isfinite().all(1)
    if not bool(good.all()):
        raise _BadRecord(f"the position of atom {int((~good).nonzero()[0]) + 1} is not finite")
    return molecule


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


def _xyz_blocks(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    """Frames of as many lines as each announces; where that fails, the rest is one block."""
    place = 0
    while place < len(lines):
        if not lines[place].strip():
            place += 1
            continue
        count = lines[place].strip()
        end = place + 2 + int(count) if count.isdecimal() else len(lines)
        yield lines[place:end]
        place = end


def _parse_xyz(lines: Sequence[str]) -> tuple[str, Molecule, str]:
    count = lines[0].strip()
    if not count.isdecimal() or int(count) == 0:
        raise _BadRecord(f"'{_short(count)}' is no number of atoms")
    if len(lines) != int(count) + 2:
        raise _BadRecord(f"{count} atoms are announced, {max(0, len(lines) - 2)} are there")
    atoms = [_parse_atom(line) for line in lines[2:]]
    z = torch.tensor([number for number, _ in atoms])
    x = torch.tensor([position for _, position in atoms])
    return "", _checked(Molecule(x, z, torch.zeros_like(z))), ""


def _parse_atom(line: str) -> tuple[int, list[float]]:
    """Symbol or atomic number, then three numbers; more columns are left out."""
    words = line.split()
    try:
        position = [float(word) for word in words[1:4]]
    except ValueError:
        position = []
    if len(position) != 3:
        raise _BadRecord(f"'{_short(line)}' is no atom: wanted a symbol and three numbers")
    number = int(words[0]) if words[0].isdecimal() else NUMBERS.get(words[0].capitalize(), 0)
    if not 0 < number < len(SYMBOLS):
        raise _BadRecord(f"'{_short(words[0])}' is no known element")
    return number, position


def _short(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text.strip())
    return text if len(text) <= 30 else text[:30] + "…"


def _pdb_blocks(lines: Sequence[str]) -> Iterator[Sequence[str]]:
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


def _parse_pdb(lines: Sequence[str]) -> tuple[str, Molecule, str]:
    atoms = [line for line in lines if not line.startswith("CONECT")]
    if not atoms:
        raise _BadRecord("no atoms")
    for line in atoms:
        if not _POSITION.match(line[30:54]):
            raise _BadRecord(f"'{_short(line)}' is no atom: wanted a position in columns 31 to 54")
    with quiet():
        mol = chemistry().MolFromPDBBlock(
            "\n".join(lines) + "\n", sanitize=False, removeHs=False, proximityBonding=False
        )
    if mol is None:
        raise _BadRecord("RDKit cannot parse it (cut short, or an element that does not exist?)")
    return "", _molecule(mol), _smiles(mol, complete=True)
