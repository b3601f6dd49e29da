"""Any molecules in a folder: SDF, MOL, XYZ and PDB files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from anylatent.core.support.disk_cache import cached
from anylatent.core.support.files import UserError, stamp, visible_files
from anylatent.core.support.packages import package_version
from anylatent.core.support.progress import track
from anylatent.modalities.molecule.data.base import MoleculeData, split
from anylatent.modalities.molecule.data.packed import Packed, tensor_text, text_tensor
from anylatent.modalities.molecule.data.skeletons import NEAREST, nearest, skeletons
from anylatent.modalities.molecule.files import SUFFIXES, Record, read_molecules

_SHOWN = 10


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
        if not path:
            raise UserError(
                "the data set 'molecule_folder' needs data.path=..., a folder of molecules "
                f"({' '.join(SUFFIXES)})"
            )
        self.root = Path(path).expanduser()
        self.paths = _find(self.root)
        self.fraction, self.seed = held_out, seed
        stamps = [[str(file.relative_to(self.root)), *stamp(file)] for file in self.paths]
        self._source = {
            "files": stamps,
            "root": str(self.root.resolve()),
            "made by": [f"rdkit {package_version('rdkit')}", "1"],
        }
        given = {"files": stamps, "held_out": held_out, "seed": seed}
        key = {**given, "made by": self._source["made by"]}
        super().__init__(key, hydrogens, elements=elements, charges=charges)

    @cached_property
    def problems(self) -> list[str]:
        """What was left out, and why."""
        return [line for line in tensor_text(self._tensors["problems"]).split("\n") if line]

    def parts(self) -> Mapping[str, Packed]:
        every, where = Packed.of_cache(self._tensors), f"{self.root}"
        if not len(every):
            raise UserError(_summary(self.problems, 0, self.root))
        if self.problems:
            warnings.warn(_summary(self.problems, len(every), self.root), stacklevel=2)
        groups = [str(key) for key in self._tensors["skeletons"].tolist()]
        train, held_out = split(groups, self.fraction, self.seed, where)
        return {"train": every.select(train), "held_out": every.select(held_out)}

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return cached("molecules", self._source, lambda: _read(self.paths, self.root))


def _read(paths: Sequence[Path], root: Path) -> dict[str, Tensor]:
    """All good molecules, their skeletons, and the problems with the others."""
    records: list[Record] = []
    problems: list[str] = []
    for path in track(paths, "reading molecules", len(paths)):
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
                problems.append(f"{path.relative_to(root)}, {record.name}: a single atom")
    every = _pack(records)
    least = nearest(every)
    for row in (least < NEAREST).nonzero()[:, 0].tolist():
        close = f"{records[row].name}: atoms {least[row]:.2g} Å from one another"
        problems.append(f"{close}, nearer than {NEAREST} Å")
    good = (least >= NEAREST).nonzero()[:, 0]
    kept = every.select(good)
    problem_text = text_tensor("\n".join(problems))
    return {**kept.compact(), "skeletons": skeletons(kept), "problems": problem_text}


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
    shown = "; ".join(problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    read = f"{good} molecules were read" if good else "no molecule can be used"
    return f"{root}: {read}, and {len(problems)} things left out: {shown}{more}"


def _find(root: Path) -> list[Path]:
    if not root.exists():
        raise UserError(f"there is no folder {str(root)!r} to read molecules from")
    if not root.is_dir():
        raise UserError(f"{str(root)!r} is a file: give the folder that it is in")
    found = visible_files(root, SUFFIXES)
    if not found:
        raise UserError(
            f"no molecules in {str(root)!r} or below it: looked for {' '.join(SUFFIXES)}"
        )
    return found
