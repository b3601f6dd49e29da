"""Molecules as they are saved, drawn and judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

from anylatent.modalities.molecule.molecule import Molecule

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Molecule", "Molecules"]

_LARGEST_PERCEIVED = 100
"""Atoms: beyond, RDKit's perception is left out of the saved files."""


class Molecules(Sequence[Molecule]):
    """Any number of molecules of any sizes, outputs of the molecule modality; on the CPU unless
    moved.

    `hydrogens` says whether the data have hydrogen atoms: without them a molecule's open valences
    say nothing about its bonds.
    """

    def __init__(self, molecules: Iterable[Molecule] = (), *, hydrogens: bool = True) -> None:
        self._molecules, self.hydrogens = list(molecules), hydrogens

    @classmethod
    def unpack(
        cls, x: Tensor, z: Tensor, charge: Tensor, mask: Tensor, *, hydrogens: bool = True
    ) -> Molecules:
        """From a padded batch: x (B, N, 3), z and charge (B, N), mask (B, N)."""
        sizes = mask.sum(1).tolist()
        columns = (x.detach().float(), z, charge)
        flat = (torch.split(value[mask].cpu(), sizes) for value in columns)
        return cls((Molecule(*parts) for parts in zip(*flat, strict=True)), hydrogens=hydrogens)

    # ---- a sequence ---------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self._molecules)

    def __iter__(self) -> Iterator[Molecule]:
        return iter(self._molecules)

    @overload
    def __getitem__(self, index: int) -> Molecule: ...
    @overload
    def __getitem__(self, index: slice) -> Molecules: ...
    def __getitem__(self, index: int | slice) -> Molecule | Molecules:
        found = self._molecules[index]
        return self.like(found) if isinstance(found, list) else found

    def __add__(self, other: Molecules) -> Molecules:
        return self.like([*self, *other])

    def like(self, molecules: Iterable[Molecule]) -> Molecules:
        """Other molecules of the same kind of data."""
        return Molecules(molecules, hydrogens=self.hydrogens)

    @property
    def sizes(self) -> Tensor:
        """The number of atoms of each, (B,)."""
        return torch.tensor([len(molecule) for molecule in self], dtype=torch.long)

    # ---- outputs ------------------------------------------------------------------------------
    def to(self, device: torch.device | str) -> Molecules:
        moved = ((m.x.to(device), m.z.to(device), m.charge.to(device)) for m in self)
        return self.like(Molecule(*columns) for columns in moved)

    @classmethod
    def join(cls, pieces: Sequence[Molecules]) -> Molecules:
        return pieces[0].like(molecule for piece in pieces for molecule in piece)

    def save(self, directory: Path, names: Sequence[str]) -> list[Path]:
        """NAME.sdf with the bonds of the distance table, NAME.xyz, and NAME_rdkit.sdf.

        The last has the bonds that RDKit perceives: left out where it finds none, for more than
        100 atoms, and without hydrogen in the data, whose absence it would take for multiple bonds.
        """
        paths: list[Path] = []
        for molecule, name in zip(self.to("cpu"), names, strict=True):
            paths += self._save(molecule, Path(directory), name)
        return paths

    def _save(self, molecule: Molecule, directory: Path, name: str) -> list[Path]:
        from anylatent.modalities.molecule.files import formula, write_sdf, write_xyz
        from anylatent.modalities.molecule.perception import mol_by_rdkit, mol_by_table

        table, plain = directory / f"{name}.sdf", directory / f"{name}.xyz"
        perceived = directory / f"{name}_rdkit.sdf"
        write_sdf(molecule, mol_by_table(molecule), table)
        write_xyz(molecule, plain, f"{name} {formula(molecule)}")
        fit = len(molecule) <= _LARGEST_PERCEIVED and self.hydrogens
        mol = mol_by_rdkit(molecule) if fit else None
        if mol is None:
            perceived.unlink(missing_ok=True)  # of an earlier sample of this name
            return [table, plain]
        write_sdf(molecule, mol, perceived, bonds="RDKit")
        return [table, plain, perceived]

    def show(self, columns: int | None = None, labels: Sequence[str] = ()) -> Image.Image:
        """Each molecule in space and, below, its 2D drawing by the distance table."""
        from anylatent.modalities.molecule.drawing import cards

        return cards(self.to("cpu"), columns, labels)

    def beside(self, originals: Molecules) -> Image.Image:
        """In space, data above and reconstructions below, both from the side of the data."""
        from anylatent.modalities.molecule.drawing import comparison

        return comparison(originals.to("cpu"), self.to("cpu"))
