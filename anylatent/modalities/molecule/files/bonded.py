"""Which atoms are bonded by their distance, in how many pieces, and whether hydrogen is missing.

Two atoms are bonded where they are nearer than 1.3 sums of their covalent radii (Cordero et al.
2008, doi 10.1039/b801115j, as RDKit has them). Alkali metals and the heavier alkaline earths are
bonded to nothing: they are ions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias

import torch
from torch import Tensor

from anylatent.modalities.molecule.elements import NUMBERS
from anylatent.modalities.molecule.molecule import Molecule

_RADII = [
    0.0,
    *(
        float(text)
        for text in (
            "0.31 0.28 1.28 0.96 0.84 0.76 0.71 0.66 0.57 0.58 1.66 1.41 1.21 1.11 1.07 1.05 1.02 "
            "1.06 2.03 1.76 1.70 1.60 1.52 1.39 1.39 1.32 1.26 1.24 1.32 1.22 1.22 1.20 1.19 1.20 "
            "1.20 1.16 2.20 1.95 1.90 1.75 1.64 1.54 1.47 1.46 1.42 1.39 1.45 1.44 1.42 1.39 1.39 "
            "1.38 1.39 1.40 2.44 2.15 2.07 2.04 2.03 2.01 1.99 1.98 1.98 1.96 1.94 1.92 1.92 1.89 "
            "1.90 1.87 1.87 1.75 1.70 1.62 1.51 1.44 1.41 1.36 1.36 1.32 1.45 1.46 1.48 1.40 1.50 "
            "1.50 2.60 2.20 2.15 2.06 2.00 1.96 1.90 1.87 1.80 1.69 1.90 1.90 1.90 1.90 1.90 1.90 "
            "1.90 1.90 1.90 1.90 1.90 1.90 1.90 1.90 1.90 1.90 1.36 1.43 1.62 1.75 1.65 1.57"
        ).split()
    ),
]
RADII = torch.tensor(_RADII, dtype=torch.float64)
"""The covalent radius of each atomic number in Å."""

Positions: TypeAlias = Sequence[Sequence[float]]

_FACTOR = 1.3
_IONS = torch.tensor([NUMBERS[s] for s in "Na K Rb Cs Fr Ca Sr Ba Ra".split()])
_ROWS = 1024  # of atoms, whose distances to all others are measured at once
_EXACT = "donot_use_mm_for_euclid_dist"
_TRIPLE, _DOUBLE = 0.87, 0.93  # longest, of the sum of radii
_LINEAR, _FLAT = 150.0, 340.0  # degrees


def near(molecule: Molecule) -> tuple[Tensor, float]:
    """The pairs i < j that are bonded by distance, (E, 2), and the least distance of all in Å."""
    x, radii = molecule.x.double(), RADII[molecule.z]
    radii = radii.masked_fill(torch.isin(molecule.z, _IONS), 0.0)
    pairs, least = [torch.empty(0, 2, dtype=torch.long)], torch.inf
    for start in range(0, len(x), _ROWS):
        rows = torch.arange(start, min(start + _ROWS, len(x)))
        distances = torch.cdist(x[rows], x, compute_mode=_EXACT)
        distances[rows[:, None] >= torch.arange(len(x))] = torch.inf
        least = min(least, float(distances.min()))
        limits = _FACTOR * (radii[rows, None] + radii)
        limits[(radii[rows, None] == 0) | (radii == 0)] = 0.0
        i, j = (distances < limits).nonzero(as_tuple=True)
        pairs.append(torch.stack([rows[i], j], 1))
    return torch.cat(pairs), least


def pieces(count: int, pairs: Tensor) -> list[list[int]]:
    """The atoms of each connected piece, each in order, the pieces by their first atom."""
    root = list(range(count))

    def find(atom: int) -> int:
        while root[atom] != atom:
            root[atom] = root[root[atom]]
            atom = root[atom]
        return atom

    for i, j in pairs.tolist():
        first, second = sorted((find(i), find(j)))
        root[second] = first
    found: dict[int, list[int]] = {}
    for atom in range(count):
        found.setdefault(find(atom), []).append(atom)
    return list(found.values())


def lacks_hydrogen(molecule: Molecule, pairs: Tensor) -> bool:
    """Whether an atom is shaped as if hydrogen had been there.

    A carbon with one neighbour by no triple bond, with two at an angle, with three by single bonds
    that are in no plane with it; a carbon, nitrogen or oxygen alone.
    """
    neighbours: list[list[int]] = [[] for _ in range(len(molecule))]
    for i, j in pairs.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    numbers, x = molecule.z.tolist(), molecule.x.tolist()
    return any(
        (number in (6, 7, 8) and not around) or (number == 6 and _is_open(numbers, x, atom, around))
        for atom, (number, around) in enumerate(zip(numbers, neighbours, strict=True))
    )


def angles(x: Positions, atom: int, around: Sequence[int]) -> list[float]:
    """The angles between neighbours of an atom in degrees, one for each pair of them."""
    arms = [[a - b for a, b in zip(x[other], x[atom], strict=True)] for other in around]
    units = [[part / (math.hypot(*arm) or 1.0) for part in arm] for arm in arms]
    cosines = (sum(p * q for p, q in zip(a, b, strict=True)) for a, b in combinations(units, 2))
    return [math.degrees(math.acos(max(-1.0, min(1.0, cosine)))) for cosine in cosines]


def _is_open(numbers: Sequence[int], x: Positions, atom: int, around: Sequence[int]) -> bool:
    if not 1 <= len(around) <= 3:
        return False
    ratios = [
        math.dist(x[atom], x[other]) / (_RADII[numbers[atom]] + _RADII[numbers[other]])
        for other in around
    ]
    if len(around) == 1:
        return ratios[0] > _TRIPLE
    if len(around) == 2:
        return angles(x, atom, around)[0] < _LINEAR
    return min(ratios) > _DOUBLE and sum(angles(x, atom, around)) < _FLAT
