"""Bonds by distance, and how many of them an atom should have.

The usual criterion for generated molecules (EDM, arXiv 2203.17003): atoms at distance d have

    order = #{k : d < length_k + margin_k},    k = single, double, triple; margins 10, 5, 3 pm

where the lengths are those of physical-chemistry handbooks. It knows no resonance: the bonds of
benzene (139.7 pm) lie just above the limit of a double bond (139 pm) and count as single ones, so
that about 5 % of the molecules of QM9 are "unstable". Figures by this table compare with the
literature; `perception.mol_by_rdkit` is the better chemist.

A pair that the table lacks (Se–C, B–C, any metal) has no bond. An element without allowed valences
is never stable.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from anylatent.modalities.molecule.elements import NUMBERS, SYMBOLS

MARGINS = (10, 5, 3)
"""Slack in pm of single, double and triple bonds."""

# pair, then the lengths in pm of its single, double and triple bond
_LENGTHS = """
H H 74; H B 119; H C 109; H N 101; H O 96; H F 92; H Si 148; H P 144; H S 134; H Cl 127;
H As 152; H Br 141; H I 161; B Cl 175;
C C 154 134 120; C N 147 129 116; C O 143 120 113; C F 135; C Si 185; C P 184; C S 182 160;
C Cl 177; C Br 194; C I 214;
N N 145 125 110; N O 140 121; N F 136; N P 177; N S 168; N Cl 175; N Br 214; N I 222;
O O 148 121; O F 142; O Si 163; O P 163 150; O S 151; O Cl 164; O Br 172; O I 194;
F F 142; F Si 160; F P 156; F S 158; F Cl 166; F Br 178; F I 187;
Si Si 233; Si S 200; Si Cl 202; Si Br 215; Si I 243;
P P 221; P S 210 186; P Cl 203; P Br 222;
S S 204; S Cl 207; S Br 225; S I 234;
Cl Cl 199; Cl Br 214; Br Br 228; I I 266
"""

# sums of bond orders of neutral atoms; the noble gases serve ions (Cl⁻ has as many electrons as Ar)
_VALENCES = """
H 1; He 0; B 3; C 4; N 3; O 2; F 1; Ne 0; Al 3; Si 4; P 3 5; S 2 4 6; Cl 1; Ar 0;
Ge 4; As 3; Se 2 4 6; Br 1; Kr 0; I 1; Xe 0; Hg 1 2; Bi 3 5
"""


def bond_orders(distances: Tensor, z: Tensor) -> Tensor:
    """Orders 0 to 3, (..., n, n) int64, of distances (..., n, n) in Å; z (..., n).

    Symmetric with a zero diagonal. A distance that is not a number is no bond.
    """
    number = _known(z)
    limits = _limits().to(distances)[:, number[..., :, None], number[..., None, :]]
    orders = (distances < limits).sum(0)
    return orders.masked_fill(torch.eye(z.shape[-1], dtype=torch.bool, device=z.device), 0)


def stable(orders: Tensor, z: Tensor, charge: Tensor | None = None) -> Tensor:
    """Whether each atom has an allowed sum of bond orders, (..., n) bool.

    `orders` (..., n, n) are whole numbers: give Kekulé's for aromatic rings, never 1.5 cast to an
    integer. Without `charge` all atoms count as neutral, as in EDM; with it, an ion may have the
    valences of the element with as many electrons: N⁺ those of carbon, O⁻ those of fluorine.
    Of neutral sulphur 2 and 6 are allowed besides EDM's 4, which would make thiols unstable.
    """
    if orders.is_floating_point():
        raise TypeError(
            f"bond orders must be whole numbers, got {orders.dtype}: aromatic bonds need Kekulé's "
            "orders (perception.kekule_orders)"
        )
    electrons = _known(z) if charge is None else _known(z - charge) * (_known(z) > 0)
    valence = orders.sum(-1)
    allowed = _allowed().to(z.device)
    most = allowed.shape[1] - 1
    return allowed[electrons, valence.clamp(max=most)] & (valence <= most)


def _known(z: Tensor) -> Tensor:
    """Atomic numbers, 0 for those that no element has."""
    return torch.where((z > 0) & (z < len(SYMBOLS)), z, 0)


@cache
def _limits() -> Tensor:
    """Distances in Å below which there is a single, double, triple bond, (3, 119, 119)."""
    limits = torch.zeros(3, len(SYMBOLS), len(SYMBOLS), dtype=torch.float64)
    for entry in _LENGTHS.split(";"):
        first, second, *lengths = entry.split()
        i, j = NUMBERS[first], NUMBERS[second]
        for order, (length, margin) in enumerate(zip(lengths, MARGINS, strict=False)):
            limits[order, i, j] = limits[order, j, i] = (int(length) + margin) / 100
    return limits


@cache
def _allowed() -> Tensor:
    """Which sums of bond orders each element may have, (119, 7) bool."""
    allowed = torch.zeros(len(SYMBOLS), 7, dtype=torch.bool)
    for entry in _VALENCES.split(";"):
        symbol, *valences = entry.split()
        allowed[NUMBERS[symbol], [int(valence) for valence in valences]] = True
    return allowed
