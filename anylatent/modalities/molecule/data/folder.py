"""Any molecules in a folder: SDF, MOL, XYZ and PDB files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from anylatent.core.support.files import UserError
from anylatent.core.support.packages import package_version
from anylatent.core.support.progress import track
from anylatent.modalities.molecule.data.base import MoleculeData
from anylatent.modalities.molecule.data.packed import Packed
from anylatent.modalities.molecule.data.skeletons import NEAREST, nearest, skeletons
from anylatent.modalities.molecule.files import SUFFIXES, Record, read_molecules
from anylatent.modalities.shared.folder import DOCUMENTS, Files, Kinds
from anylatent.modalities.shared.layout import note_split
from anylatent.modalities.shared.strings import listed, tensor_text, text_tensor


class MoleculeFolder(MoleculeData):
    """The molecules in the files below `path`: sdf, mol, xyz and pdb, hidden ones left out.

    Files are read in the order of their paths, as `files.read_molecules` says; an sdf or xyz file
    may hold any number of molecules. Hydrogen atoms are those of the files: none is added, and
    `hydrogens=False` leaves them out. Split by the skeleton of heavy atoms, so that copies and
    conformers of a molecule, stereoisomers and protonation states stay in one part.

    What cannot be read, is a single atom, or has atoms nearer than 0.3 Å to one another is left
    out; one warning counts and names it. Raises UserError without a path, for what is no folder,
    where no molecule is found, and where fewer than two different ones are left, unless `held_out`
    is 0; `MissingPackage` without RDKit. `elements` and `charges`: see `MoleculeData`.
    """

    def __init__(
        self,
        path: str = "",
        hydrogens: bool = True,
        held_out: float = 0.1,
        seed: int = 0,
        elements: Sequence[str] | None = None,
        charges: Sequence[int] | None = None,
    ) -> None:
        self.files = Files(
            path,
            Kinds(SUFFIXES, DOCUMENTS),
            purpose="the data set 'molecule_folder'",
            wanted=f"a folder of molecules ({' '.join(SUFFIXES)})",
            what="molecules",
        )
        note_split(self.files.names, self.files.report)
        self.fraction, self.seed = held_out, seed
        self._source = {"made by": [f"rdkit {package_version('rdkit')}", "1"]}
        given = {"files": self.files.stamps, "held_out": held_out, "seed": seed}
        super().__init__({**given, **self._source}, hydrogens, elements=elements, charges=charges)

    @cached_property
    def problems(self) -> list[str]:
        """What was left out, and why."""
        read = tensor_text(self._tensors["problems"]).split("\n")
        return [*(line for line in read if line), *self.files.report.entries]

    def parts(self) -> Mapping[str, Packed]:
        every, root = Packed.of_cache(self._tensors), self.files.root
        if not len(every):
            raise UserError(_summary(self.problems, 0, root))
        if self.problems:
            warnings.warn(_summary(self.problems, len(every), root), stacklevel=2)
        groups = [str(key) for key in self._tensors["skeletons"].tolist()]
        return every.split(groups, self.fraction, self.seed, str(root))

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return self.files.read("molecules", self._source, lambda: _read(self.files))


def _read(files: Files) -> dict[str, Tensor]:
    """All good molecules, their skeletons, and the problems with the others."""
    records: list[Record] = []
    problems: list[str] = []
    named = zip(files.paths, files.names, strict=True)
    for path, place in track(named, "reading molecules", len(files.paths)):
        try:
            found, bad = read_molecules(path)
        except (ValueError, OSError) as error:
            problems.append(" ".join(str(error).split()))
            continue
        problems += bad
        for record in found:
            if len(record.molecule) > 1:
                records.append(record)
            else:
                problems.append(f"{place}, {record.name}: a single atom")
    every = _pack(records)
    least = nearest(every)
    for row in (least < NEAREST).nonzero()[:, 0].tolist():
        close = f"{records[row].name}: atoms {least[row]:.2g} Å from one another"
        problems.append(f"{close}, nearer than {NEAREST} Å")
    good = (least >= NEAREST).nonzero()[:, 0]
    kept = every.select(good)
    told = {"skeletons": skeletons(kept), "problems": text_tensor("\n".join(problems))}
    return {**kept.compact(), **told}


def _pack(records: Sequence[Record]) -> Packed:
    molecules = [record.molecule for record in records]
    return Packed(
        torch.cat([torch.empty(0, 3), *(molecule.x for molecule in molecules)]),
        torch.cat([torch.empty(0).long(), *(molecule.z for molecule in molecules)]),
        torch.cat([torch.empty(0).long(), *(molecule.charge for molecule in molecules)]),
        torch.tensor([len(molecule) for molecule in molecules], dtype=torch.long),
        [record.smiles for record in records],
    )


def _summary(problems: Sequence[str], good: int, root: Path) -> str:
    read = f"{good} molecules were read" if good else "no molecule can be used"
    return f"{root}: {read}, and {len(problems)} things left out: {listed(problems)}"
