"""The metrics of molecules: chemistry by shares, geometry by distances, properties, restoration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from anylatent.core.modality import Data, Metric, Modality, Outputs
from anylatent.core.support.progress import track
from anylatent.modalities.molecule.metrics.chemistry import (
    NEED_HYDROGENS,
    judge,
    shares,
    stability,
)
from anylatent.modalities.molecule.metrics.control import PropertyJudge
from anylatent.modalities.molecule.metrics.geometry import Geometry, squares
from anylatent.modalities.molecule.metrics.references import (
    atomic_numbers,
    molecules_of,
    references_of,
)
from anylatent.modalities.molecule.molecules import Molecules


class MoleculeMetric(Metric, ABC):
    """Figures of molecules; `limit` molecules make a row of real data, and `reference` of them what
    distances are measured to.

    There are rows for held-out molecules, training molecules, and a "cloud": molecules of the
    training part's atom counts, element frequencies and extent, and nothing else right.
    """

    modality: ClassVar[str] = "molecule"

    def __init__(self, data: Data, limit: int = 2000, reference: int = 4000) -> None:
        self.references = references_of(data, limit, reference)

    @abstractmethod
    def row(self, molecules: Molecules, like: Geometry) -> dict[str, float]:
        """The figures of some molecules, beside others that should be like them."""

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        return self.row(molecules_of(outputs), self.references.held_out)

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """Distances of "held-out" are to the training part, the others to the held-out one."""
        found = self.references
        return {
            name: self.row(molecules, found.training if name == "held-out" else found.held_out)
            for name, molecules in found.rows.items()
        }


class Chemistry(MoleculeMetric):
    """Shares of molecules that are stable, valid, new, in one piece.

    With bonds by the usual distance table (EDM, 2203.17003; see `bonds`), of samples and of at most
    `limit` real molecules. (`reference`: see `molecule_geometry`.)

    - `molecules`: how many they are about;
    - `atom_stability`, `molecule_stability`: atoms whose bond orders add up to an allowed valence,
      and molecules in which all do; `molecule_stability_charged` with valences of ions for atoms
      with a formal charge;
    - `valid`: RDKit sanitises the molecule, all its atoms neutral, as in the literature (it fills
      open valences with hydrogens); `valid_charged`: the same with formal charges;
      `valid_rdkit`: RDKit itself perceives bonds that fill every valence and join all atoms;
    - `valid_and_unique`: different valid molecules, as a share of all; `unique`: as a share of the
      valid ones; `novel`: the share of these that the training part lacks. Two are the same
      if the canonical SMILES of their largest fragments are, hydrogens included, stereochemistry
      not;
    - `connected`: one fragment.

    A figure without meaning is left out: novelty where nothing is valid, stability and
    `valid_rdkit`, which count hydrogens, for data without them.
    """

    place: ClassVar[int] = 0

    def row(self, molecules: Molecules, like: Geometry) -> dict[str, float]:
        count, found = len(molecules), self.references
        verdicts = [judge(molecule) for molecule in track(molecules, "judging molecules", count)]
        row = shares(verdicts, found.known)
        if not found.hydrogens:
            row = {name: value for name, value in row.items() if name not in NEED_HYDROGENS}
        return {"molecules": float(count), **row}


class Distances(MoleculeMetric):
    """Distances of geometry and composition to real molecules.

    `w1_bond_length` (Å), `w1_bond_angle` (degrees), `w1_atoms`, `tv_elements`, see `geometry`: to
    at most `reference` held-out molecules; `limit` make a row of real data.
    """

    place: ClassVar[int] = 1

    def row(self, molecules: Molecules, like: Geometry) -> dict[str, float]:
        return Geometry.of(molecules).distances(like)


class PropertyErrors(Metric):
    """How far properties of molecules are from those asked for, by a regressor.

    `mae_<property>`, see `control`. Rows: held-out molecules by their own properties, by those of
    others ("random"), and what one says who knows the number of atoms alone.
    """

    modality: ClassVar[str] = "molecule"
    place: ClassVar[int] = 2

    def __init__(self, data: Data) -> None:
        self.data = data

    @classmethod
    def applies(cls, modality: Modality, data: Data) -> bool:
        return super().applies(modality, data) and bool(data.facts.get("properties"))

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        asked = {name: columns[name] for name in self._properties if name in columns}
        return self.judge.errors(molecules_of(outputs), asked) if asked else {}

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        asked = [name for name in self._properties if name in conditions]
        return self.judge.baselines(asked) if asked else {}

    @cached_property
    def judge(self) -> PropertyJudge:
        """Of the properties that samples were asked to have."""
        return PropertyJudge(self.data, atomic_numbers(self.data))

    @property
    def _properties(self) -> list[str]:
        return list(self.data.facts["properties"])


class MoleculesRestored(Metric):
    """How well molecules are restored, atom by atom.

    `elements_restored`, `charges_restored`: shares of atoms; `molecules_restored`: the share of
    molecules with every element right; `rmsd` (Å): the root of the mean squared distance between
    an atom and its restoration, both molecules centred, not rotated; stability beside that of the
    originals. Raises ValueError unless the molecules correspond in number and size.
    """

    modality: ClassVar[str] = "molecule"
    place: ClassVar[int] = 3

    def __init__(self, data: Data) -> None:
        self.hydrogens = "H" in data.facts["elements"]

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> dict[str, float]:
        before, after = molecules_of(originals), molecules_of(outputs)
        if before.sizes.tolist() != after.sizes.tolist():
            raise ValueError(
                f"originals and outputs must have as many atoms each: got {len(before)} molecules "
                f"of {before.sizes.tolist()[:8]}... and {len(after)} of "
                f"{after.sizes.tolist()[:8]}... atoms"
            )
        pairs = list(zip(before, after, strict=True))
        right = [a.z == b.z for a, b in pairs]
        row = {
            "elements_restored": _mean(right),
            "charges_restored": _mean([a.charge == b.charge for a, b in pairs]),
            "molecules_restored": sum(bool(each.all()) for each in right) / len(right),
            "rmsd": _mean([squares(a, b) for a, b in pairs]) ** 0.5,
        }
        if self.hydrogens:
            for name, molecules in (("", after), ("_originals", before)):
                atoms, whole = stability(molecules)
                row |= {f"atom_stability{name}": atoms, f"molecule_stability{name}": whole}
        return row


class Published(Metric):
    """Rows on molecules quoted from papers, not measured: the attribute `published` of the data."""

    modality: ClassVar[str] = "molecule"
    place: ClassVar[int] = 4

    def __init__(self, data: Data) -> None:
        self.rows = _published(data)

    @classmethod
    def applies(cls, modality: Modality, data: Data) -> bool:
        return super().applies(modality, data) and bool(_published(data))

    @property
    def notes(self) -> Sequence[str]:
        return [
            f"{', '.join(self.rows)}: quoted from Table 1 of arXiv 2305.01140, not measured here."
        ]

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        return {name: dict(row) for name, row in self.rows.items()}


def _published(data: Data) -> Mapping[str, Mapping[str, float]]:
    found: Mapping[str, Mapping[str, float]] = getattr(data, "published", {})
    return found


def _mean(pieces: list[Tensor]) -> float:
    return float(torch.cat(pieces).double().mean())
