"""Molecules of ideal geometry, made from lengths and angles, and broken ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anylatent.modalities.molecule.elements import NUMBERS
from anylatent.modalities.molecule.molecule import Molecule

SIXTH = math.pi / 3


def molecule(symbols, x, charge=None) -> Molecule:
    z = torch.tensor([NUMBERS[symbol] for symbol in symbols], dtype=torch.long)
    charge = torch.zeros_like(z) if charge is None else torch.tensor(charge)
    return Molecule(torch.as_tensor(x, dtype=torch.float32).view(-1, 3), z, charge)


def replaced(m: Molecule, **parts) -> Molecule:
    return Molecule(parts.get("x", m.x), parts.get("z", m.z), parts.get("charge", m.charge))


def without(m: Molecule, atom: int) -> Molecule:
    kept = torch.arange(len(m)) != atom
    return Molecule(m.x[kept], m.z[kept], m.charge[kept])


def moved(m: Molecule, atom: int, x) -> Molecule:
    positions = m.x.clone()
    positions[atom] = torch.as_tensor(x)
    return replaced(m, x=positions)


def joined(a: Molecule, b: Molecule, apart: float) -> Molecule:
    """Both, the second shifted along the first axis."""
    x = torch.cat([a.x, b.x + torch.tensor([apart, 0.0, 0.0])])
    return Molecule(x, torch.cat([a.z, b.z]), torch.cat([a.charge, b.charge]))


def turned(m: Molecule, seed: int = 0) -> Molecule:
    """Rotated, reflected, shifted and with its atoms in another order."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
    order = torch.randperm(len(m), generator=generator)
    x = m.x @ turn.T + torch.randn(3, generator=generator)
    return Molecule(x[order], m.z[order], m.charge[order])


def tetrahedron(length: float) -> Tensor:
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    return corners * length / math.sqrt(3)


def methane(length: float = 1.09) -> Molecule:
    return molecule("CHHHH", torch.cat([torch.zeros(1, 3), tetrahedron(length)]))


def ammonium() -> Molecule:
    x = torch.cat([torch.zeros(1, 3), tetrahedron(1.02)])
    return molecule("NHHHH", x, [1, 0, 0, 0, 0])


def water(length: float = 0.96, angle: float = 104.5) -> Molecule:
    a = math.radians(angle)
    return molecule(
        "OHH", [[0, 0, 0], [length, 0, 0], [length * math.cos(a), length * math.sin(a), 0]]
    )


def ammonia() -> Molecule:
    """Three bonds of 1.01 Å at 107°: each leans out by sin φ = sqrt(4/3) sin(107°/2)."""
    out = 1.01 * math.sqrt(4 / 3) * math.sin(math.radians(107 / 2))
    up = math.sqrt(1.01**2 - out**2)
    ring = [[out * math.cos(2 * k * SIXTH), out * math.sin(2 * k * SIXTH), up] for k in range(3)]
    return molecule("NHHH", [[0, 0, 0], *ring])


def ethene(length: float = 1.33) -> Molecule:
    half, x, y = length / 2, 1.09 * math.cos(SIXTH), 1.09 * math.sin(SIXTH)
    hydrogens = [[side * (half + x), up * y, 0] for side in (1, -1) for up in (1, -1)]
    return molecule("CCHHHH", [[half, 0, 0], [-half, 0, 0], *hydrogens])


def ethyne() -> Molecule:
    return molecule("CCHH", [[0.6, 0, 0], [-0.6, 0, 0], [1.66, 0, 0], [-1.66, 0, 0]])


def hydrogen_cyanide() -> Molecule:
    return molecule("HCN", [[-1.07, 0, 0], [0, 0, 0], [1.15, 0, 0]])


def formaldehyde() -> Molecule:
    x, y = -1.11 * math.cos(SIXTH), 1.11 * math.sin(SIXTH)
    return molecule("COHH", [[0, 0, 0], [1.21, 0, 0], [x, y, 0], [x, -y, 0]])


def benzene(single: float = 1.397, double: float = 1.397) -> Molecule:
    """A ring of 120° whose bonds alternate between two lengths; with equal ones the real benzene.

    Each side of the ring is reached from the last by a turn of 60°, each hydrogen lies outwards.
    """
    corners = [torch.zeros(3)]
    for k, length in enumerate([single, double] * 3):
        step = torch.tensor([math.cos(k * SIXTH), math.sin(k * SIXTH), 0.0])
        corners.append(corners[-1] + length * step)
    assert float((corners[-1] - corners[0]).norm()) < 1e-5
    ring = torch.stack(corners[:-1])
    # the bisector outside the corner at which the direction turns from (k - 1) 60° to k 60°
    turns = [(k - 0.5) * SIXTH - math.pi / 2 for k in range(6)]
    out = torch.tensor([[math.cos(turn), math.sin(turn), 0.0] for turn in turns])
    x = torch.cat([ring, ring + 1.085 * out])
    return molecule(["C"] * 6 + ["H"] * 6, x - x.mean(0))


WHOLE = {
    "methane": (methane(), "C"),
    "water": (water(), "O"),
    "ammonia": (ammonia(), "N"),
    "ethene": (ethene(), "C=C"),
    "ethyne": (ethyne(), "C#C"),
    "hydrogen cyanide": (hydrogen_cyanide(), "C#N"),
    "formaldehyde": (formaldehyde(), "C=O"),
    "Kekulé's benzene": (benzene(1.45, 1.34), "c1ccccc1"),
}
"""Molecules that are stable by the table, and their canonical SMILES."""
