"""What all data sets of molecules share: items, and facts about them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.data.packed import Packed
from anylatent.modalities.molecule.elements import SYMBOLS, indices


class MoleculeSet(Dataset[Item]):
    """Some molecules as items, with `lengths` (M,), the number of atoms of each.

    An item has `x` (n, 3) float32 in Å with zero mean, `element` (n,) the index of each atom's
    element, `charge` (n,) formal charges, `atoms` = n, `smiles` ("" where unknown), and a float
    for each property.
    """

    def __init__(self, packed: Packed, elements: Sequence[str]) -> None:
        self.packed, self.lengths = packed.centred(), packed.sizes
        self._element = indices(packed.z, elements).to(torch.uint8)
        self._ends = packed.sizes.cumsum(0).tolist()
        self._sizes = packed.sizes.tolist()
        self._columns = {name: column.tolist() for name, column in packed.properties.items()}

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"molecule {index} of {len(self)}")
        size, end = self._sizes[index], self._ends[index]
        atoms = slice(end - size, end)
        item: Item = {
            "x": self.packed.x[atoms],
            "element": self._element[atoms].long(),
            "charge": self.packed.charge[atoms].long(),
            "atoms": size,
            "smiles": self.packed.smiles[index],
        }
        return item | {name: column[index] for name, column in self._columns.items()}


class MoleculeData(Data):
    """Molecules in parts that share none; subclasses say where they come from.

    `key` is everything that determines the items, as plain values. `parts()` is called once, when
    items or facts are first asked for. `units` names the unit of each property. `published` has
    figures from papers on the same data, by row and figure, which were not measured here.

    Elements and charges are those that occur, or those of other data, `elements` and `charges`,
    where they have all that occur: so a trained model reads molecules that lack some of them.
    """

    classes: Mapping[str, Sequence[str]] = {}
    shape = ()
    published: Mapping[str, Mapping[str, float]] = {}

    def __init__(
        self,
        key: Mapping[str, object],
        hydrogens: bool,
        units: Mapping[str, str] | None = None,
        elements: Sequence[str] | None = None,
        charges: Sequence[int] | None = None,
    ) -> None:
        self._key = {"kind": type(self).__name__, "hydrogens": hydrogens, **key}
        self._encoding = list(elements or []), list(charges or [])
        if elements or charges:
            self._key["encoding"] = self._encoding
        self.hydrogens, self.units = hydrogens, dict(units or {})

    @property
    def fingerprint(self) -> str:
        return digest(self._key)

    @abstractmethod
    def parts(self) -> Mapping[str, Packed]:
        """The molecules of each part, hydrogen included; "train" and "held_out" at least."""

    def train(self) -> MoleculeSet:
        return self.part("train")

    def held_out(self) -> MoleculeSet:
        return self.part("held_out")

    def part(self, name: str) -> MoleculeSet:
        """The items of one part."""
        if name not in self._sets:
            self._sets[name] = MoleculeSet(self._parts[name], self.elements)
        return self._sets[name]

    @property
    def facts(self) -> dict[str, Any]:
        """Elements, formal charges, sizes and properties, with which models are built."""
        return self._facts

    @cached_property
    def elements(self) -> list[str]:
        """The symbols of all elements that occur, by atomic number, or of those given."""
        found = torch.unique(torch.cat([part.z for part in self._parts.values()]))
        symbols, given = [SYMBOLS[number] for number in found.tolist()], self._encoding[0]
        return given if set(symbols) <= set(given) else symbols

    @cached_property
    def charges(self) -> list[int]:
        """All formal charges that occur, or those given."""
        found = torch.unique(torch.cat([part.charge for part in self._parts.values()])).tolist()
        given = self._encoding[1]
        return given if set(found) <= set(given) else found

    @cached_property
    def _sets(self) -> dict[str, MoleculeSet]:
        return {}

    @cached_property
    def _parts(self) -> dict[str, Packed]:
        parts = dict(self.parts())
        wanted = [name for name, part in parts.items() if len(part)]
        if not self.hydrogens:
            parts = {name: part.heavy() for name, part in parts.items()}
        empty = [name for name in wanted if not len(parts[name])]
        if empty:
            raise UserError(f"no molecule is left in the part {', '.join(empty)}")
        return parts

    @cached_property
    def _facts(self) -> dict[str, Any]:
        train = self._parts["train"]
        sizes, counts = torch.unique(train.sizes, return_counts=True)
        return {
            "elements": self.elements,
            "charges": self.charges,
            "sizes": [list(pair) for pair in zip(sizes.tolist(), counts.tolist(), strict=True)],
            "properties": {
                name: {**_figures(train.properties[name]), "unit": unit}
                for name, unit in self.units.items()
            },
            "classes": {},
            "shape": [],
        }


def _figures(column: Tensor) -> dict[str, float]:
    """Rounded: facts are compared, and the last digits depend on the number of threads."""
    x = column.double()
    found = {"mean": x.mean(), "std": x.std(correction=0), "min": x.min(), "max": x.max()}
    return {name: float(f"{float(value):.6g}") for name, value in found.items()}
