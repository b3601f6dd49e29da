"""Errors of the properties of generated molecules, beside those of molecules that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from anylatent.core.modality import Data
from anylatent.core.support.disk_cache import cached
from anylatent.modalities.molecule.metrics import properties
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules

REAL = 2000
"""Held-out molecules for the rows of real data."""


class PropertyJudge:
    """A regressor of the data's properties, learned once from molecules no generator sees."""

    def __init__(self, data: Data, elements: Tensor) -> None:
        """`elements`: the atomic number of each of the data's elements."""
        self.data, self.elements = data, elements
        self.names = list(data.facts["properties"])
        self.units = {name: data.facts["properties"][name]["unit"] for name in self.names}

    def errors(self, molecules: Molecules, asked: Mapping[str, Any]) -> dict[str, float]:
        """The mean absolute error between asked and found, by property, over finite molecules.

        Entries that were not asked for (None) don't count.
        """
        sane = [bool(molecule.x.isfinite().all()) for molecule in molecules]
        kept = Molecules(m for m, ok in zip(molecules, sane, strict=True) if ok)
        found = (
            properties.predict(self.state, kept) if len(kept) else torch.zeros(0, len(self.names))
        )
        row = {}
        for name, values in asked.items():
            wanted = [value for value, ok in zip(_plain(values), sane, strict=True) if ok]
            gaps = [
                abs(float(got) - float(value))
                for got, value in zip(found[:, self.names.index(name)], wanted, strict=True)
                if value is not None
            ]
            if gaps:
                row[f"mae_{name}"] = sum(gaps) / len(gaps)
        return row

    def baselines(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Held-out molecules judged by their own properties, by those of others, and what one
        says who knows the number of atoms alone."""
        held_out, values = self._molecules(_items(self.data.held_out(), REAL))
        train = _items(self.data.train(), None)
        learned, sizes = self._values(train), torch.tensor([item["atoms"] for item in train])
        rows: dict[str, dict[str, float]] = {"held-out": {}, "random": {}, "atom count": {}}
        for name in names:
            column = self.names.index(name)
            own = values[:, column]
            other = own.roll(len(own) // 2)
            guess = properties.guess_from_sizes(sizes, learned[:, column], held_out.sizes)
            rows["held-out"] |= self.errors(held_out, {name: own})
            rows["random"] |= self.errors(held_out, {name: other})
            rows["atom count"][f"mae_{name}"] = float((guess - own).abs().mean())
        return rows

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The regressor, learned at first use and kept on disk."""
        made_by = {
            "data": self.data.fingerprint,
            "version": properties.VERSION,
            "steps": properties.STEPS,
        }
        return cached("property_regressor", made_by, self._learn)

    def _learn(self) -> dict[str, Tensor]:
        molecules, targets = self._molecules(_items(self.data.judged_by(), None))
        return properties.learn(molecules, targets, properties.STEPS)

    def _molecules(self, items: Sequence[Any]) -> tuple[Molecules, Tensor]:
        """Molecules and their properties (M, K)."""
        molecules = Molecules(
            Molecule(item["x"], self.elements[item["element"]], item["charge"]) for item in items
        )
        return molecules, self._values(items)

    def _values(self, items: Sequence[Any]) -> Tensor:
        return torch.tensor([[float(item[name]) for name in self.names] for item in items])


def _items(dataset: Any, count: int | None) -> list[Any]:
    size = len(dataset)
    return [dataset[i] for i in range(size if count is None else min(count, size))]


def _plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, Tensor) else list(values)
