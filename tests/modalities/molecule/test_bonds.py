"""The table of bond lengths, and which sums of bond orders are allowed."""

from __future__ import annotations

import pytest
import torch

from anylatent.modalities.molecule import bonds
from anylatent.modalities.molecule.bonds import bond_orders, stable
from anylatent.modalities.molecule.elements import NUMBERS
from anylatent.modalities.molecule.perception import kekule_orders, mol_by_rdkit, table_bonds
from tests.modalities.molecule import ideal


def order(first: str, second: str, distance: float) -> int:
    z = torch.tensor([NUMBERS[first], NUMBERS[second]])
    both = torch.tensor([[0.0, distance], [distance, 0.0]], dtype=torch.float64)
    found = bond_orders(both, z)
    assert int(found[0, 1]) == int(found[1, 0]) and found.diagonal().tolist() == [0, 0]
    return int(found[0, 1])


@pytest.mark.parametrize(
    ("first", "second", "limits"),
    [
        ("C", "C", (1.64, 1.39, 1.23)),
        ("N", "C", (1.57, 1.34, 1.19)),
        ("C", "O", (1.53, 1.25, 1.16)),
        ("N", "N", (1.55, 1.30, 1.13)),
        ("O", "N", (1.50, 1.26)),
        ("O", "O", (1.58, 1.26)),
        ("C", "S", (1.92, 1.65)),
        ("P", "O", (1.73, 1.55)),
        ("C", "F", (1.45,)),
        ("H", "O", (1.06,)),
        ("H", "H", (0.84,)),
        ("I", "I", (2.76,)),
        ("B", "Cl", (1.85,)),
    ],
)
def test_orders_change_at_the_lengths_and_margins(first, second, limits) -> None:
    for k, limit in enumerate(limits):
        assert order(first, second, limit - 1e-6) == k + 1
        assert order(first, second, limit + 1e-6) == k
    assert order(first, second, 0.0) == len(limits)


def test_longer_bonds_have_lower_orders() -> None:
    """For every pair: limits fall with the order, and no higher order exists without the lower."""
    limits = bonds._limits()
    assert torch.equal(limits, limits.transpose(1, 2))
    assert bool((limits[:-1] >= limits[1:]).all())
    assert int((limits[0] > 0).sum()) == 2 * 64 - 11  # 64 pairs, 11 of them of equal elements


@pytest.mark.parametrize("pair", [("C", "Se"), ("B", "C"), ("Fe", "N"), ("He", "H"), ("*", "C")])
def test_unknown_pairs_have_no_bond(pair) -> None:
    assert order(*pair, 0.1) == 0


def test_numbers_of_no_element_and_positions_that_are_no_number() -> None:
    z = torch.tensor([-1, 0, 119, 500, 6])
    assert not bond_orders(torch.zeros(5, 5), z).any()
    assert not stable(torch.zeros(5, 5, dtype=torch.long), z, torch.tensor([0, -6, 0, 0, 0])).any()
    assert not bond_orders(torch.full((2, 2), torch.nan), torch.tensor([6, 6])).any()


def test_batches() -> None:
    """A batch of molecules of one size gives what each gives alone."""
    some = [ideal.methane(), ideal.turned(ideal.methane(), 3), ideal.ammonium()]
    x, z = torch.stack([m.x for m in some]), torch.stack([m.z for m in some])
    charge = torch.stack([m.charge for m in some])
    together = bond_orders(torch.cdist(x, x), z)
    assert together.shape == (3, 5, 5)
    for row, m in enumerate(some):
        assert torch.equal(together[row], table_bonds(m))
        alone = stable(table_bonds(m), m.z, m.charge)
        assert torch.equal(stable(together, z, charge)[row], alone)


def with_valence(symbol: str, valence: int, charge: int | None = None) -> bool:
    """Whether an atom is stable that has one bond of that order to a dummy."""
    orders = torch.tensor([[0, valence], [valence, 0]])
    charges = None if charge is None else torch.tensor([charge, 0])
    return bool(stable(orders, torch.tensor([NUMBERS[symbol], 0]), charges)[0])


@pytest.mark.parametrize(
    ("symbol", "allowed"),
    [
        ("H", [1]), ("C", [4]), ("N", [3]), ("O", [2]), ("F", [1]), ("B", [3]), ("Al", [3]),
        ("Si", [4]), ("P", [3, 5]), ("S", [2, 4, 6]), ("Cl", [1]), ("As", [3]), ("Br", [1]),
        ("I", [1]), ("Hg", [1, 2]), ("Bi", [3, 5]), ("Fe", []), ("*", []),
    ],
)  # fmt: skip
def test_valences_of_neutral_atoms(symbol, allowed) -> None:
    assert [v for v in range(12) if with_valence(symbol, v)] == allowed
    assert [v for v in range(12) if with_valence(symbol, v, 0)] == allowed


@pytest.mark.parametrize(
    ("symbol", "charge", "allowed"),
    [
        ("N", 1, [4]), ("N", -1, [2]), ("O", -1, [1]), ("O", 1, [3]), ("C", 1, [3]),
        ("C", -1, [3]), ("B", -1, [4]), ("S", 1, [3, 5]), ("S", -1, [1]), ("P", 1, [4]),
        ("Cl", -1, [0]), ("F", -1, [0]), ("Br", -1, [0]), ("H", 1, []), ("*", -6, []),
    ],
)  # fmt: skip
def test_valences_of_ions(symbol, charge, allowed) -> None:
    assert [v for v in range(12) if with_valence(symbol, v, charge)] == allowed


def test_orders_that_are_no_whole_numbers_are_refused() -> None:
    """Aromatic rings: 1.5 + 1.5 + 1 = 4 at each carbon atom; cast to integers it would be 3."""
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    m = ideal.benzene()
    whole = kekule_orders(mol_by_rdkit(m))
    assert bool(stable(whole, m.z).all())
    with pytest.raises(TypeError, match="whole numbers, got torch.float32"):
        stable(whole.float(), m.z)
