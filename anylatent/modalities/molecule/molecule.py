"""One molecule: atoms in space, without padding."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Molecule:
    """n atoms: positions `x` (n, 3) in Å, atomic numbers `z` (n,), formal charges `charge` (n,)."""

    x: Tensor
    z: Tensor
    charge: Tensor

    def __len__(self) -> int:
        return len(self.z)
