"""Any molecules in a folder: SDF, MOL, XYZ, PDB and mmCIF files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property

import torch
from torch import Tensor

from anylatent.core.support.files import UserError
from anylatent.core.support.packages import package_version
from anylatent.core.support.progress import track
from anylatent.modalities.molecule.data.base import MoleculeData
from anylatent.modalities.molecule.data.packed import Packed
from anylatent.modalities.molecule.data.skeletons import NEAREST, skeletons
from anylatent.modalities.molecule.files import SUFFIXES, Record, Rules, read
from anylatent.modalities.shared.folder import DOCUMENTS, Files, Kinds
from anylatent.modalities.shared.layout import note_split
from anylatent.modalities.shared.strings import (
    lines_tensor,
    listed,
    tensor_lines,
    tensor_text,
    text_tensor,
)

_TOLD = {
    "fragments": "in several pieces",
    "missing_hydrogens": "without all of their hydrogen atoms",
    "drawings": "drawings",
    "encoding": "lines that are no text, with a sign in place of what is none",
}
"""What is told of molecules, or of their files, that a setting lets pass, by the setting."""


class MoleculeFolder(MoleculeData):
    """The molecules in the files below `path`: sdf, mol, xyz, pdb, cif, mmcif and bcif, hidden ones
    left out.

    Files are read in the order of their paths, as `files.read_molecules` says; most may hold any
    number of molecules. Hydrogen atoms are those of the files: none is added, and
    `hydrogens=False` leaves them out. Split by the skeleton of heavy atoms, so that copies and
    conformers of a molecule, stereoisomers and protonation states stay in one part.

    `fragments` says what becomes of several pieces that no bond joins, as in salts and with water:
    keep, largest (only the piece with most heavy atoms) or refuse. `missing_hydrogens`: keep or
    refuse molecules that lack some of their hydrogen atoms. `drawings`: refuse, or keep what is a
    drawing in the plane. Atoms nearer than `nearest` Å to one another or farther than `farthest` Å
    from the centre are refused. Text is UTF-8, UTF-16 with a mark, or in `encoding`; a line that
    is not is told, and its molecule left out where more of it is read than a title or a remark.

    What cannot be read, is a single atom, or is refused is left out; one warning counts and names
    it, and what was kept though one of these settings could refuse it. Raises UserError without a
    path, for what is no folder, where no molecule is found, and where fewer than two different ones
    are left, unless `held_out` is 0; `MissingPackage` without RDKit. `elements` and `charges`: see
    `MoleculeData`.
    """

    def __init__(
        self,
        path: str = "",
        hydrogens: bool = True,
        fragments: str = "keep",
        missing_hydrogens: str = "keep",
        drawings: str = "refuse",
        nearest: float = NEAREST,
        farthest: float = 100.0,
        encoding: str = "",
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
        self.rules = Rules(
            drawings, fragments, missing_hydrogens, nearest, farthest, least=2, encoding=encoding
        )
        note_split(self.files.names, self.files.report)
        self.fraction, self.seed = held_out, seed
        self._source = {
            "made by": [f"rdkit {package_version('rdkit')}", "3"],
            "rules": asdict(self.rules),
        }
        given = {"files": self.files.stamps, "held_out": held_out, "seed": seed}
        super().__init__({**given, **self._source}, hydrogens, elements=elements, charges=charges)

    @cached_property
    def problems(self) -> list[str]:
        """What was left out, and why."""
        read = tensor_text(self._tensors["problems"]).split("\n")
        return [*(line for line in read if line), *self.files.report.entries]

    @cached_property
    def told(self) -> dict[str, list[str]]:
        """The names of what was kept or cut down, by the setting that says so."""
        rules = [rule for rule in _TOLD if self.hydrogens or rule != "missing_hydrogens"]
        named = {rule: tensor_lines(self._tensors[f"told.{rule}"]) for rule in rules}
        return {rule: names for rule, names in named.items() if names}

    def parts(self) -> Mapping[str, Packed]:
        every, root = Packed.of_cache(self._tensors), self.files.root
        if not len(every):
            raise UserError(f"{root}: no molecule can be used, and {_left_out(self.problems)}")
        if self.problems or self.told:
            warnings.warn(self._summary(len(every)), stacklevel=2)
        groups = [str(key) for key in self._tensors["skeletons"].tolist()]
        return every.split(groups, self.fraction, self.seed, str(root))

    def _summary(self, good: int) -> str:
        parts = [f"{good} molecules were read"]
        parts += [f"and {_left_out(self.problems)}"] if self.problems else []
        for rule, names in self.told.items():
            choice = getattr(self.rules, rule)
            setting = f"data.{rule}={choice or '...'}"
            parts.append(f"{len(names)} {_TOLD[rule]} ({setting}): {listed(names)}")
        return f"{self.files.root}: {', '.join(parts)}"

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return self.files.read("molecules", self._source, lambda: _read(self.files, self.rules))


def _read(files: Files, rules: Rules) -> dict[str, Tensor]:
    """All good molecules, their skeletons, the problems with the others, and what is told."""
    records: list[Record] = []
    problems: list[str] = []
    told: dict[str, list[str]] = {rule: [] for rule in _TOLD}
    for path in track(files.paths, "reading molecules", len(files.paths)):
        try:
            found = read(path, rules)
        except (ValueError, OSError) as error:
            problems.append(" ".join(str(error).split()))
            continue
        problems += found.problems
        records += found.records
        for rule, names in found.told.items():
            told[rule] += [" ".join(name.split()) for name in names]
    every = _pack(records)
    return {
        **every.compact(),
        "skeletons": skeletons(every),
        "problems": text_tensor("\n".join(problems)),
        **{f"told.{rule}": lines_tensor(names) for rule, names in told.items()},
    }


def _pack(records: Sequence[Record]) -> Packed:
    molecules = [record.molecule for record in records]
    return Packed(
        torch.cat([torch.empty(0, 3), *(molecule.x.float() for molecule in molecules)]),
        torch.cat([torch.empty(0).long(), *(molecule.z for molecule in molecules)]),
        torch.cat([torch.empty(0).long(), *(molecule.charge for molecule in molecules)]),
        torch.tensor([len(molecule) for molecule in molecules], dtype=torch.long),
        [record.smiles for record in records],
    )


def _left_out(problems: Sequence[str]) -> str:
    return f"{len(problems)} things left out: {listed(problems)}"
