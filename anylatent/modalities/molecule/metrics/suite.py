"""The table of figures by which generated and restored molecules are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item, Metrics, Outputs
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.packages import package_version
from anylatent.core.support.progress import track
from anylatent.modalities.molecule.elements import NUMBERS
from anylatent.modalities.molecule.metrics.chemistry import judge, keys, shares, stability
from anylatent.modalities.molecule.metrics.control import PropertyJudge
from anylatent.modalities.molecule.metrics.geometry import Geometry
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules

_NEED_HYDROGENS = (
    "atom_stability",
    "molecule_stability",
    "molecule_stability_charged",
    "valid_rdkit",
)


class MoleculeMetrics(Metrics):
    """Figures of molecules against a data set: chemistry by shares, geometry by distances.

    With bonds by the usual distance table (EDM, arXiv 2203.17003; see `bonds`), a row holds

    - `molecules`: how many it is about;
    - `atom_stability`, `molecule_stability`: atoms whose bond orders add up to an allowed valence,
      and molecules in which all do; `molecule_stability_charged` with valences of ions for atoms
      with a formal charge;
    - `valid`: RDKit sanitises the molecule, all its atoms neutral, as in the literature (it fills
      open valences with hydrogens); `valid_charged`: the same with formal charges;
      `valid_rdkit`: RDKit itself perceives bonds that fill every valence and join all atoms;
    - `valid_and_unique`: different valid molecules, as a share of all; `unique`: as a share of the
      valid ones; `novel`: the share of these that the training part lacks. Two are the same
      if the canonical SMILES of their largest fragments are, hydrogens included, stereochemistry
      not. The SMILES of the training part come from its coordinates by the same procedure, not
      from a column: about 5 % of those of QM9 would differ;
    - `connected`: one fragment;
    - `w1_bond_length` (Å), `w1_bond_angle` (degrees), `w1_atoms`, `tv_elements`: distances to the
      held-out part, see `geometry`.

    A figure without meaning is left out of its row: novelty where nothing is valid, stability and
    `valid_rdkit`, which count hydrogens, for data without them. `limit` molecules make a row of
    real data, and `reference` of them what distances are measured to.
    """

    def __init__(self, data: Data, limit: int = 2000, reference: int = 4000) -> None:
        self.data, self.limit, self.reference = data, limit, reference

    @property
    def notes(self) -> Sequence[str]:
        rows = ", ".join(getattr(self.data, "published", {}))
        return (
            [f"{rows}: quoted from Table 1 of arXiv 2305.01140, not measured here."] if rows else []
        )

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        molecules = _check(outputs)
        row = self._row(molecules, self._held_out)
        asked = {name: columns[name] for name in self._properties if name in columns}
        return row | self.judge.errors(molecules, asked) if asked else row

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> dict[str, float]:
        """How well molecules are restored, atom by atom.

        `elements_restored`, `charges_restored`: shares of atoms; `molecules_restored`: the share of
        molecules with every element right; `rmsd` (Å): the root of the mean squared distance
        between an atom and its restoration, both molecules centred, not rotated; stability beside
        that of the originals. Raises ValueError unless the molecules correspond in number and size.
        """
        before, after = _check(originals), _check(outputs)
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
            "rmsd": _mean([_squares(a, b) for a, b in pairs]) ** 0.5,
        }
        if self._hydrogens:
            for name, molecules in (("", after), ("_originals", before)):
                atoms, whole = stability(molecules)
                row |= {f"atom_stability{name}": atoms, f"molecule_stability{name}": whole}
        return row

    @cached_property
    def judge(self) -> PropertyJudge:
        """Of the properties that samples were asked to have."""
        return PropertyJudge(self.data, self._elements)

    @property
    def _properties(self) -> list[str]:
        return list(self.data.facts.get("properties", {}))

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """Rows for real data, for data made worse, and for published models if the data tell any.

        "held-out" (its distances are to the training part), "training", and "cloud": molecules
        with the training part's atom counts, element frequencies and extent for each size, and
        nothing else right. Published rows come from the data's attribute `published`: they are
        quoted from papers (GeoLDM's Table 1, arXiv 2305.01140), not measured here. Where samples
        were asked for properties, further rows say what their errors compare with; see
        `properties`.
        """
        held_out, train = self._some(self.data.held_out()), self._some(self.data.train())
        rows = {
            "held-out": self._row(held_out, self._training),
            "training": self._row(train, self._held_out),
            "cloud": self._row(cloud(train), self._held_out),
        }
        asked = [name for name in self._properties if name in conditions]
        for name, row in self.judge.baselines(asked).items() if asked else ():
            rows[name] = rows.get(name, {}) | row
        published: Mapping[str, Mapping[str, float]] = getattr(self.data, "published", {})
        return rows | {name: dict(row) for name, row in published.items()}

    def _row(self, molecules: Molecules, reference: Geometry) -> dict[str, float]:
        known, count = self._known, len(molecules)
        verdicts = [judge(molecule) for molecule in track(molecules, "judging molecules", count)]
        row = shares(verdicts, known)
        if not self._hydrogens:
            row = {name: value for name, value in row.items() if name not in _NEED_HYDROGENS}
        return {"molecules": float(count), **row, **Geometry.of(molecules).distances(reference)}

    @cached_property
    def _elements(self) -> Tensor:
        """The atomic number of each of the data's elements."""
        return torch.tensor([NUMBERS[symbol] for symbol in self.data.facts["elements"]])

    @property
    def _hydrogens(self) -> bool:
        return "H" in self.data.facts["elements"]

    @cached_property
    def _known(self) -> frozenset[int]:
        """The keys of all training molecules."""
        made_by = {"data": self.data.fingerprint, "rdkit": package_version("rdkit"), "version": 1}
        found = cached("smiles", made_by, lambda: {"keys": self._keys()})
        return frozenset(found["keys"].tolist())

    def _keys(self) -> Tensor:
        dataset = self.data.train()
        return keys(self._molecules(dataset, range(_size(dataset))), _size(dataset))

    @cached_property
    def _held_out(self) -> Geometry:
        return Geometry.of(self._some(self.data.held_out(), self.reference))

    @cached_property
    def _training(self) -> Geometry:
        return Geometry.of(self._some(self.data.train(), self.reference))

    def _some(self, dataset: Dataset[Item], count: int | None = None) -> Molecules:
        """Always the same molecules, `count` (else `limit`) of them at most."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.randperm(_size(dataset), generator=generator)[: count or self.limit]
        return Molecules(self._molecules(dataset, rows.tolist()))

    def _molecules(self, dataset: Dataset[Item], rows: range | list[int]) -> Iterator[Molecule]:
        for row in rows:
            item = dataset[row]
            yield Molecule(item["x"], self._elements[item["element"]], item["charge"])


def cloud(molecules: Molecules) -> Molecules:
    """Molecules of the same sizes with Gaussian positions and shuffled elements, all neutral.

    Positions have zero mean, and the variance that positions have in molecules of that size.
    """
    generator = torch.Generator().manual_seed(0)
    variance = _variances(molecules)
    numbers = torch.cat([molecule.z for molecule in molecules])
    numbers = numbers[torch.randperm(len(numbers), generator=generator)]
    made = []
    for z in torch.split(numbers, molecules.sizes.tolist()):
        x = torch.randn(len(z), 3, generator=generator)
        x = (x - x.mean(0)) * (variance[len(z)] * len(z) / max(len(z) - 1, 1)) ** 0.5
        made.append(Molecule(x, z, torch.zeros_like(z)))
    return Molecules(made)


def _variances(molecules: Molecules) -> dict[int, float]:
    """The variance of a coordinate by the number of atoms."""
    squares: dict[int, list[Tensor]] = {}
    for molecule in molecules:
        squares.setdefault(len(molecule), []).append((molecule.x - molecule.x.mean(0)).square())
    return {size: _mean(each) for size, each in squares.items()}


def _squares(a: Molecule, b: Molecule) -> Tensor:
    """The squared distance of each atom from its restoration, (n,)."""
    return ((a.x - a.x.mean(0)) - (b.x - b.x.mean(0))).double().square().sum(1)


def _mean(pieces: list[Tensor]) -> float:
    return float(torch.cat(pieces).double().mean())


def _size(dataset: Dataset[Item]) -> int:
    return len(dataset)  # type: ignore[arg-type]


def _check(outputs: Outputs) -> Molecules:
    if (
        not isinstance(outputs, Molecules)
        or not len(outputs)
        or not bool((outputs.sizes > 0).all())
    ):
        got = type(outputs).__name__
        if isinstance(outputs, Molecules):
            got = f"{len(outputs)} molecules of sizes {outputs.sizes.tolist()[:8]}"
        raise ValueError(f"the figures need Molecules, at least one, none empty; got {got}")
    return outputs
