"""What tells molecules apart, and atoms that cannot be where they are said to be.

Two conformers of a molecule, two of its stereoisomers or protonation states are near copies: a
split must not put them on different sides. They have one *skeleton*: heavy atoms and the bonds
between them, without orders, by distance. Its key is that of Weisfeiler and Leman's refinement,

    label_i <- mix(label_i, sum_{j bonded to i} mix(label_j)),    key = sum_i mix(label_i),

so equal skeletons always have equal keys, and few others do: those only stay together.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anylatent.core.support.progress import track
from anylatent.modalities.molecule.bonds import bond_orders
from anylatent.modalities.molecule.data.packed import Packed

NEAREST = 0.3
"""Å: atoms nearer to one another than this are said to overlap."""

_ROUNDS = 8
_PAIRS = 2**18  # of atoms, at once


def nearest(packed: Packed) -> Tensor:
    """The least distance between two atoms of each molecule in Å, (M,); infinite for one atom."""
    found = torch.full((len(packed),), torch.inf)
    for rows, _, distances in _blocks(packed, "measuring distances"):
        distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        found[rows] = distances.amin((1, 2))
    return found


def skeletons(packed: Packed) -> Tensor:
    """The key of each molecule's skeleton, (M,) int64; 0 for those of hydrogen alone."""
    heavy = packed.keep(packed.z > 1)
    first, second = _bonds(heavy)
    label = _mix(heavy.z.long())
    for _ in range(_ROUNDS):
        around = torch.zeros_like(label).index_add(0, first, _mix(label[second]))
        label = _mix(3 * label + around)
    return torch.zeros_like(heavy.sizes).index_add(0, heavy.owners, _mix(label))


def _bonds(packed: Packed) -> tuple[Tensor, Tensor]:
    """Bonded atoms as places in `packed.x`, each pair both ways, (E,) and (E,)."""
    bonds = [torch.empty(2, 0, dtype=torch.long)]
    for _, atoms, distances in _blocks(packed, "finding bonds"):
        which, i, j = bond_orders(distances, packed.z[atoms].long()).nonzero(as_tuple=True)
        bonds.append(torch.stack([atoms[which, i], atoms[which, j]]))
    first, second = torch.cat(bonds, 1)
    return first, second


def _blocks(packed: Packed, description: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Molecules of one size: their rows (B,), atoms (B, n) and distances (B, n, n) in Å."""
    starts = packed.sizes.cumsum(0) - packed.sizes
    blocks: list[Tensor] = []
    for size in torch.unique(packed.sizes[packed.sizes > 0]).tolist():
        rows = (packed.sizes == size).nonzero()[:, 0]
        blocks += torch.split(rows, max(1, _PAIRS // size**2))
    for rows in track(blocks, description, len(blocks)):
        atoms = starts[rows][:, None] + torch.arange(int(packed.sizes[rows[0]]))
        x = packed.x[atoms]
        distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        yield rows, atoms, distances


def _mix(value: Tensor) -> Tensor:
    """A bijection of 64-bit numbers that spreads every bit (the finaliser of splitmix64)."""
    value = value + _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ _shifted(value, shift)) * _signed(factor)
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Shifted right without its sign."""
    shifted: Tensor = (value >> bits) & (2 ** (64 - bits) - 1)
    return shifted


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
