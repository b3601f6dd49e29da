"""Bond lengths, bond angles, sizes and elements of many molecules, and how two sets of them differ.

Between distributions of numbers P and Q it is the Wasserstein distance W₁ = ∫ |F_P − F_Q|, in the
unit of the numbers. Lengths are compared for each kind of bond (two elements and an order), angles
for each element at their centre; the mean over kinds is weighted by how frequent they are among
the reference. A kind that either set lacks can't be compared and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from anylatent.modalities.molecule.elements import SYMBOLS
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.perception import table_bonds

Kind = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Of a set of molecules, with bonds by the usual distance table.

    `lengths` in Å by (smaller atomic number, larger one, order); `angles` in degrees by (atomic
    number of the centre,); `sizes` (M,) atom counts; `elements` (119,) how many atoms of each.
    """

    lengths: dict[Kind, Tensor]
    angles: dict[Kind, Tensor]
    sizes: Tensor
    elements: Tensor

    @classmethod
    def of(cls, molecules: Iterable[Molecule]) -> Geometry:
        """The geometry of at least one molecule."""
        lengths, angles, sizes, numbers = [], [], [], []
        for molecule in molecules:
            orders = table_bonds(molecule)
            lengths.append(bond_lengths(molecule, orders))
            angles.append(bond_angles(molecule, orders))
            sizes.append(len(molecule))
            numbers.append(molecule.z[(molecule.z > 0) & (molecule.z < len(SYMBOLS))])
        elements = torch.bincount(torch.cat(numbers).long(), minlength=len(SYMBOLS))
        return cls(_by_kind(lengths), _by_kind(angles), torch.tensor(sizes), elements)

    def distances(self, reference: Geometry) -> dict[str, float]:
        """W₁ of bond lengths (Å), angles (degrees) and atom counts; total variation of elements."""
        row = {
            "w1_bond_length": _mean_w1(self.lengths, reference.lengths),
            "w1_bond_angle": _mean_w1(self.angles, reference.angles),
            "w1_atoms": _w1(self.sizes, reference.sizes),
            "tv_elements": total_variation(self.elements, reference.elements),
        }
        return {name: value for name, value in row.items() if value is not None}


def bond_lengths(molecule: Molecule, orders: Tensor) -> tuple[Tensor, Tensor]:
    """Kinds (bonds, 3) and lengths (bonds,) in Å."""
    i, j = orders.triu(1).nonzero(as_tuple=True)
    x = molecule.x.double()
    pair = torch.stack([molecule.z[i], molecule.z[j]], 1).sort(1).values
    return torch.cat([pair, orders[i, j, None]], 1), (x[i] - x[j]).norm(dim=1)


def bond_angles(molecule: Molecule, orders: Tensor) -> tuple[Tensor, Tensor]:
    """Kinds (angles, 1) and angles (angles,) in degrees, of each pair of bonds at an atom."""
    bonded = orders > 0
    pairs = bonded[:, :, None] & bonded[:, None, :]
    centre, i, j = pairs.triu(1).nonzero(as_tuple=True)
    x = molecule.x.double()
    a, b = x[i] - x[centre], x[j] - x[centre]
    angle = torch.atan2(torch.linalg.cross(a, b).norm(dim=1), (a * b).sum(1))
    return molecule.z[centre, None], torch.rad2deg(angle)


def squares(a: Molecule, b: Molecule) -> Tensor:
    """The squared distance in Å² of each atom of a from that of b, both centred, (n,)."""
    return ((a.x - a.x.mean(0)) - (b.x - b.x.mean(0))).double().square().sum(1)


def total_variation(a: Tensor, b: Tensor) -> float:
    """Half the sum of the differences between two sets of counts, each divided by its sum."""
    return float((a / a.sum() - b / b.sum()).abs().sum() / 2)


def _by_kind(pieces: list[tuple[Tensor, Tensor]]) -> dict[Kind, Tensor]:
    kinds = torch.cat([kind for kind, _ in pieces])
    values = torch.cat([value for _, value in pieces])
    names, which = torch.unique(kinds, dim=0, return_inverse=True)
    return {tuple(name): values[which == k] for k, name in enumerate(names.tolist())}


def _mean_w1(samples: dict[Kind, Tensor], reference: dict[Kind, Tensor]) -> float | None:
    """The mean over kinds that both have, weighted by the reference; None if there are none."""
    common = [kind for kind in reference if kind in samples]
    if not common:
        return None
    weights = [len(reference[kind]) for kind in common]
    distances = [_w1(samples[kind], reference[kind]) for kind in common]
    return sum(w * d for w, d in zip(weights, distances, strict=True)) / sum(weights)


def _w1(a: Tensor, b: Tensor) -> float:
    from scipy.stats import wasserstein_distance  # type: ignore[import-untyped]

    return float(wasserstein_distance(a.numpy(), b.numpy()))
