"""Molecules as they are saved, drawn and judged: atoms in space, without padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Molecule:
    """n atoms: positions `x` (n, 3) in Å, atomic numbers `z` (n,), formal charges `charge` (n,)."""

    x: Tensor
    z: Tensor
    charge: Tensor

    def __len__(self) -> int:
        return len(self.z)


class Molecules(Sequence[Molecule]):
    """Any number of molecules of any sizes, on the CPU."""

    def __init__(self, molecules: Iterable[Molecule] = ()) -> None:
        self._molecules = list(molecules)

    @classmethod
    def unpack(cls, x: Tensor, z: Tensor, charge: Tensor, mask: Tensor) -> Molecules:
        """From a padded batch: x (B, N, 3), z and charge (B, N), mask (B, N)."""
        sizes = mask.sum(1).tolist()
        columns = (x.detach().float(), z, charge)
        flat = (torch.split(value[mask].cpu(), sizes) for value in columns)
        return cls(Molecule(*parts) for parts in zip(*flat, strict=True))

    def cpu(self) -> Molecules:
        return self

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
        return Molecules(found) if isinstance(found, list) else found

    def __add__(self, other: Molecules) -> Molecules:
        return Molecules([*self, *other])

    @property
    def sizes(self) -> Tensor:
        """The number of atoms of each, (B,)."""
        return torch.tensor([len(molecule) for molecule in self], dtype=torch.long)
