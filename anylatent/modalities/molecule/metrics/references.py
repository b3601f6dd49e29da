"""Real molecules that others are judged by, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item, Outputs
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.packages import package_version
from anylatent.modalities.molecule.elements import NUMBERS
from anylatent.modalities.molecule.metrics.chemistry import keys
from anylatent.modalities.molecule.metrics.geometry import Geometry
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules


def atomic_numbers(data: Data) -> Tensor:
    """Of each of the data's elements."""
    return torch.tensor([NUMBERS[symbol] for symbol in data.facts["elements"]])


@lru_cache(maxsize=2)
def references_of(data: Data, limit: int, reference: int) -> References:
    """Those of a data set, which all metrics share."""
    return References(data, limit, reference)


class References:
    """Always the same molecules of a data set: `limit` make a row of real data, and `reference` of
    them what distances are measured to."""

    def __init__(self, data: Data, limit: int = 2000, reference: int = 4000) -> None:
        self.data, self.limit, self.reference = data, limit, reference

    @cached_property
    def rows(self) -> dict[str, Molecules]:
        """ "held-out", "training", and "cloud": molecules with the training part's atom counts,
        element frequencies and extent for each size, and nothing else right."""
        train = self.some(self.data.train())
        return {
            "held-out": self.some(self.data.held_out()),
            "training": train,
            "cloud": cloud(train),
        }

    @cached_property
    def elements(self) -> Tensor:
        return atomic_numbers(self.data)

    @property
    def hydrogens(self) -> bool:
        return "H" in self.data.facts["elements"]

    @cached_property
    def known(self) -> frozenset[int]:
        """The keys of all training molecules.

        Their SMILES come from their coordinates by the same procedure as those of samples, not
        from a column: about 5 % of those of QM9 would differ.
        """
        made_by = {"data": self.data.fingerprint, "rdkit": package_version("rdkit"), "version": 1}
        found = cached("smiles", made_by, lambda: {"keys": self._keys()})
        return frozenset(found["keys"].tolist())

    @cached_property
    def held_out(self) -> Geometry:
        return Geometry.of(self.some(self.data.held_out(), self.reference))

    @cached_property
    def training(self) -> Geometry:
        return Geometry.of(self.some(self.data.train(), self.reference))

    def some(self, dataset: Dataset[Item], count: int | None = None) -> Molecules:
        """Always the same molecules, `count` (else `limit`) of them at most."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.randperm(_size(dataset), generator=generator)[: count or self.limit]
        return Molecules(self.molecules(dataset, rows.tolist()))

    def molecules(self, dataset: Dataset[Item], rows: range | list[int]) -> Iterator[Molecule]:
        """The items of these rows."""
        for row in rows:
            item = dataset[row]
            yield Molecule(item["x"], self.elements[item["element"]], item["charge"])

    def _keys(self) -> Tensor:
        dataset = self.data.train()
        return keys(self.molecules(dataset, range(_size(dataset))), _size(dataset))


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


def molecules_of(outputs: Outputs) -> Molecules:
    """Outputs as molecules; raises ValueError for what are none, and where there are no atoms."""
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


def _variances(molecules: Molecules) -> dict[int, float]:
    """The variance of a coordinate by the number of atoms."""
    squares: dict[int, list[Tensor]] = {}
    for molecule in molecules:
        squares.setdefault(len(molecule), []).append((molecule.x - molecule.x.mean(0)).square())
    return {size: float(torch.cat(each).double().mean()) for size, each in squares.items()}


def _size(dataset: Dataset[Item]) -> int:
    return len(dataset)  # type: ignore[arg-type]
