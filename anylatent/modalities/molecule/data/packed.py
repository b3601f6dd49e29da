"""Many molecules as a few tensors, their atoms one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anylatent.modalities.shared.splits import by_threshold
from anylatent.modalities.shared.strings import lines_tensor, tensor_lines


@dataclass(frozen=True, eq=False)
class Packed:
    """M molecules of A atoms altogether, one after another.

    `x` (A, 3) in Å, atomic numbers `z` (A,), formal charges `charge` (A,), `sizes` (M,) the number
    of atoms of each; `smiles` and the columns of `properties` have M entries.
    """

    x: Tensor
    z: Tensor
    charge: Tensor
    sizes: Tensor
    smiles: Sequence[str]
    properties: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def owners(self) -> Tensor:
        """The molecule of each atom, (A,)."""
        return torch.arange(len(self)).repeat_interleave(self.sizes)

    def select(self, rows: Tensor) -> Packed:
        """Some of the molecules, in the order of `rows`."""
        starts, sizes = (self.sizes.cumsum(0) - self.sizes)[rows], self.sizes[rows]
        shift = starts - (sizes.cumsum(0) - sizes)
        atoms = torch.arange(int(sizes.sum())) + shift.repeat_interleave(sizes)
        properties = {name: column[rows] for name, column in self.properties.items()}
        smiles = [self.smiles[row] for row in rows.tolist()]
        return Packed(self.x[atoms], self.z[atoms], self.charge[atoms], sizes, smiles, properties)

    def split(
        self, groups: Sequence[str], fraction: float, seed: int, where: str
    ) -> dict[str, Packed]:
        """The parts "train" and "held_out", none of whose groups (M,) is in both."""
        train, held_out = by_threshold(groups, fraction, seed, where, "molecules")
        parts = {"train": train, "held_out": held_out}
        return {name: self.select(torch.tensor(rows).long()) for name, rows in parts.items()}

    def keep(self, atoms: Tensor) -> Packed:
        """The atoms where `atoms` (A,) is true; molecules may be left without any."""
        sizes = torch.zeros_like(self.sizes).index_add(0, self.owners, atoms.long())
        x, z, charge = self.x[atoms], self.z[atoms], self.charge[atoms]
        return Packed(x, z, charge, sizes, self.smiles, self.properties)

    def heavy(self) -> Packed:
        """Without hydrogen atoms, and without molecules that have no others."""
        left = self.keep(self.z != 1)
        return left.select((left.sizes > 0).nonzero()[:, 0])

    def centred(self) -> Packed:
        """With the mean position of each molecule at the origin."""
        x, owners = self.x.double(), self.owners
        mean = torch.zeros(len(self), 3).double().index_add(0, owners, x) / self.sizes[:, None]
        x = (x - mean[owners]).float()
        return Packed(x, self.z, self.charge, self.sizes, self.smiles, self.properties)

    # ---- caches -------------------------------------------------------------------------------
    def compact(self) -> dict[str, Tensor]:
        """Tensors for a cache: small whole numbers, SMILES as lines of text."""
        return {
            "x": self.x.float(),
            "z": self.z.to(torch.uint8),
            "charge": self.charge.to(torch.int8),
            "sizes": self.sizes.to(torch.int32),
            "smiles": lines_tensor(self.smiles),
            **{f"property.{name}": column for name, column in self.properties.items()},
        }

    @classmethod
    def of_cache(cls, tensors: Mapping[str, Tensor]) -> Packed:
        """What `compact` made tensors of."""
        smiles = tensor_lines(tensors["smiles"])
        mark = "property."
        columns = {k[len(mark) :]: tensor for k, tensor in tensors.items() if k.startswith(mark)}
        charge, sizes = tensors["charge"].long(), tensors["sizes"].long()
        return cls(tensors["x"], tensors["z"], charge, sizes, smiles, columns)
