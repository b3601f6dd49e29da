"""What becomes of records that a chemist would look at twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.files.bonded import lacks_hydrogen, near, pieces
from anylatent.modalities.molecule.files.flat import is_drawing
from anylatent.modalities.molecule.files.rdkit_text import sanitised
from anylatent.modalities.molecule.files.records import BadRecord, Parsed
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.shared.chemistry import chemistry
from anylatent.modalities.shared.reading import check_encoding

if TYPE_CHECKING:
    from rdkit.Chem import Mol

_CHOICES = {
    "drawings": ("refuse", "keep"),
    "fragments": ("keep", "largest", "refuse"),
    "missing_hydrogens": ("keep", "refuse"),
}


@dataclass(frozen=True)
class Rules:
    """Which records are refused, cut down to their largest fragment, or kept and counted.

    `drawings`: refuse, keep. `fragments`, of records in several pieces (salts, waters): keep,
    largest (by heavy atoms, then by atoms, the first of equal ones), refuse. `missing_hydrogens`:
    keep, refuse. Refused are atoms nearer than `nearest` Å to one another, atoms `farthest` Å and
    more from the centre (the median of all), and fewer than `least` atoms. `encoding` is that of
    files of text; "" is UTF-8, or what a mark says. Raises UserError for other choices.
    """

    drawings: str = "refuse"
    fragments: str = "keep"
    missing_hydrogens: str = "keep"
    nearest: float = 0.0
    farthest: float = 1000.0
    least: int = 1
    encoding: str = ""

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"{name}={getattr(self, name)}: one of {', '.join(choices)}")
        if not (0 <= self.nearest < self.farthest):
            raise UserError(
                f"nearest={self.nearest}, farthest={self.farthest}: distances in Å from 0, "
                "the larger last"
            )

    def apply(self, parsed: Parsed) -> tuple[Parsed, list[str]]:
        """The record as it is to be taken, and under which names it is counted.

        Raises BadRecord where it is refused.
        """
        told = []
        _check_far(parsed.molecule, self.farthest)
        if is_drawing(parsed):
            if self.drawings == "refuse":
                raise BadRecord("a 2D drawing (all z are equal), not positions in space")
            told.append("drawings")
        pairs, least = near(parsed.molecule)
        if least < self.nearest:
            raise BadRecord(f"atoms {least:.2g} Å from one another, nearer than {self.nearest:g} Å")
        pairs = torch.cat([pairs, _file_bonds(parsed.mol)])
        parts = pieces(len(parsed.molecule), pairs)
        if len(parts) > 1:
            parsed, pairs = self._of_several(parsed, parts, pairs)
            told.append("fragments")
        if len(parsed.molecule) < self.least:
            raise BadRecord("a single atom" if len(parsed.molecule) == 1 else "too few atoms")
        if _lacks_hydrogen(parsed, pairs):
            if self.missing_hydrogens == "refuse":
                raise BadRecord("hydrogen atoms are missing")
            told.append("missing_hydrogens")
        return parsed, told

    def _of_several(
        self, parsed: Parsed, parts: list[list[int]], pairs: Tensor
    ) -> tuple[Parsed, Tensor]:
        if self.fragments == "refuse":
            raise BadRecord(f"{len(parts)} fragments that no bond joins")
        if self.fragments == "keep":
            return parsed, pairs
        heavy = (parsed.molecule.z > 1).tolist()
        atoms = max(parts, key=lambda part: (sum(heavy[atom] for atom in part), len(part)))
        place = torch.full((len(heavy),), -1)
        place[atoms] = torch.arange(len(atoms))
        inside = place[pairs]
        return _only(parsed, atoms), inside[(inside >= 0).all(1)]


def _check_far(molecule: Molecule, farthest: float) -> None:
    distances = (molecule.x.double() - molecule.x.double().median(0).values).norm(dim=1)
    far = int(distances.argmax())
    if not float(distances[far]) < farthest:
        raise BadRecord(
            f"atom {far + 1} is {float(distances[far]):.4g} Å from the centre, farther than "
            f"{farthest:g} Å"
        )


def _file_bonds(mol: Mol | None) -> Tensor:
    """The bonds of the file as pairs, (E, 2)."""
    bonds = [] if mol is None else mol.GetBonds()
    pairs = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds]
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


def _only(parsed: Parsed, atoms: list[int]) -> Parsed:
    """Some of the atoms, with the bonds between them."""
    m, mol = parsed.molecule, parsed.mol
    if mol is not None:
        Chem, kept = chemistry(), set(atoms)
        edited = Chem.RWMol(mol)
        edited.BeginBatchEdit()
        for atom in range(len(m)):
            if atom not in kept:
                edited.RemoveAtom(atom)
        edited.CommitBatchEdit()
        mol = edited.GetMol()
    return parsed._replace(
        molecule=replace(m, x=m.x[atoms], z=m.z[atoms], charge=m.charge[atoms]), mol=mol
    )


def _lacks_hydrogen(parsed: Parsed, pairs: Tensor) -> bool:
    """By the file's bonds where they have their orders, else by the shape of the atoms."""
    mol = None if parsed.complete else sanitised(parsed.mol)
    if mol is None:
        return lacks_hydrogen(parsed.molecule, pairs)
    return any(atom.GetTotalNumHs() for atom in mol.GetAtoms())
