"""Figures about molecules, by hand: ideal ones, broken ones, and sets of a few."""

from __future__ import annotations

import math

import pytest
import torch

from anylatent.modalities.molecule.metrics import (
    Geometry,
    connected,
    judge,
    stability,
)
from anylatent.modalities.molecule.metrics.chemistry import key, keys, shares
from anylatent.modalities.molecule.metrics.geometry import (
    bond_angles,
    bond_lengths,
    total_variation,
)
from anylatent.modalities.molecule.perception import table_bonds
from tests.modalities.molecule import ideal

pytest.importorskip("rdkit", reason="rdkit is not installed")
WHOLE = pytest.mark.parametrize("m", [m for m, _ in ideal.WHOLE.values()], ids=ideal.WHOLE.keys())


# ---- one molecule -----------------------------------------------------------------------------
@WHOLE
def test_whole_molecules_are_everything(m) -> None:
    for verdict in (judge(m), judge(ideal.turned(m))):
        assert verdict.stable_atoms == verdict.atoms == len(m)
        assert verdict.stable and verdict.stable_charged and verdict.smiles and verdict.connected
        assert verdict.valid_charged and verdict.valid_rdkit
        assert verdict.smiles == judge(m).smiles
    assert stability([m, m]) == (1, 1)


def test_an_aromatic_molecule_of_real_lengths_semla_flow_4() -> None:
    """Its bonds of 139.7 pm are single to the table; RDKit gives six aromatic ones."""
    verdict = judge(ideal.benzene())
    assert (verdict.stable_atoms, verdict.stable) == (6, False)
    assert verdict.valid_rdkit and verdict.connected and verdict.smiles
    assert verdict.smiles != judge(ideal.benzene(1.45, 1.34)).smiles


def test_a_stretched_bond() -> None:
    m = ideal.methane()
    verdict = judge(ideal.moved(m, 1, 1.5 * m.x[1]))
    assert verdict.stable_atoms == 3 and not verdict.stable and not verdict.connected
    assert verdict.smiles and not verdict.valid_rdkit  # CH3 is filled up, and is the larger piece


def test_a_missing_hydrogen() -> None:
    verdict = judge(ideal.without(ideal.methane(), 4))
    assert (verdict.atoms, verdict.stable_atoms) == (4, 3)
    assert not verdict.stable and verdict.connected and not verdict.valid_rdkit
    assert verdict.smiles and verdict.smiles != judge(ideal.methane()).smiles


def test_two_fragments() -> None:
    verdict = judge(ideal.joined(ideal.water(), ideal.ethene(), 6.0))
    assert verdict.stable and not verdict.connected and not verdict.valid_rdkit
    assert verdict.smiles == judge(ideal.ethene()).smiles  # the larger stands for it


def test_overlapping_atoms() -> None:
    m = ideal.methane()
    verdict = judge(ideal.moved(m, 1, m.x[2]))
    assert (verdict.stable_atoms, verdict.stable, verdict.smiles) == (3, False, "")
    assert verdict.connected and not verdict.valid_rdkit and not verdict.valid_charged
    verdict = judge(ideal.replaced(m, x=torch.zeros(5, 3)))
    assert (verdict.stable_atoms, verdict.smiles) == (1, "")  # C has four bonds, each H has four


def test_one_atom() -> None:
    verdict = judge(ideal.molecule("C", [[0.0, 0, 0]]))
    assert (verdict.atoms, verdict.stable_atoms, verdict.stable) == (1, 0, False)
    assert verdict.connected and verdict.smiles == "C" and not verdict.valid_rdkit


def test_an_ion() -> None:
    """As in the literature charges don't count; with them ammonium is stable and valid."""
    verdict = judge(ideal.ammonium())
    assert (verdict.stable_atoms, verdict.stable, verdict.smiles) == (4, False, "")
    assert verdict.stable_charged and verdict.valid_charged and verdict.valid_rdkit
    wrong = judge(ideal.replaced(ideal.methane(), charge=torch.tensor([1, 0, 0, 0, 0])))
    assert wrong.stable and wrong.smiles
    assert not (wrong.stable_charged or wrong.valid_charged or wrong.valid_rdkit)


def test_positions_that_are_no_numbers() -> None:
    verdict = judge(ideal.replaced(ideal.methane(), x=torch.full((5, 3), torch.nan)))
    assert (verdict.stable_atoms, verdict.smiles, verdict.connected) == (0, "", False)


def test_connected() -> None:
    chain = torch.diag(torch.ones(9, dtype=torch.long), 1)
    chain = chain + chain.T
    assert connected(chain) and connected(chain[:1, :1])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert connected(chain[order][:, order])
    chain[4, 5] = chain[5, 4] = 0
    assert not connected(chain) and not connected(chain[order][:, order])


# ---- shares -----------------------------------------------------------------------------------
def test_shares_by_hand() -> None:
    """Methane twice, water, ammonium and a lone carbon atom; methane is known."""
    molecules = [
        ideal.methane(),
        ideal.turned(ideal.methane(1.08)),
        ideal.water(),
        ideal.ammonium(),
        ideal.molecule("C", [[0.0, 0, 0]]),
    ]
    known = frozenset(keys([ideal.methane(), ideal.ammonium()], 2).tolist())
    assert known == {key(judge(ideal.methane()).smiles)}  # ammonium is invalid without its charge
    assert shares([judge(m) for m in molecules], known) == {
        "atom_stability": 17 / 19,
        "molecule_stability": 3 / 5,
        "molecule_stability_charged": 4 / 5,
        "valid": 4 / 5,
        "valid_charged": 1,
        "valid_rdkit": 4 / 5,
        "valid_and_unique": 3 / 5,
        "unique": 3 / 4,
        "novel": 2 / 3,
        "connected": 1,
    }


def test_nothing_valid_has_no_novelty() -> None:
    row = shares([judge(ideal.replaced(ideal.methane(), x=torch.zeros(5, 3)))], frozenset())
    assert row["valid"] == row["valid_and_unique"] == 0
    assert "novel" not in row and "unique" not in row


def test_keys_differ_and_last() -> None:
    assert key("C") != key("CC") and -(2**63) <= key("C") < 2**63
    found = keys([m for m, _ in ideal.WHOLE.values()] * 2, 16)
    assert len(found) == len(ideal.WHOLE) and bool((found.diff() > 0).all())


# ---- geometry ---------------------------------------------------------------------------------
def test_lengths_and_angles_of_water_and_ethene() -> None:
    m = ideal.water(0.97, 105.0)
    kinds, lengths = bond_lengths(m, table_bonds(m))
    assert kinds.tolist() == [[1, 8, 1]] * 2
    assert lengths.tolist() == pytest.approx([0.97] * 2, abs=1e-6)
    kinds, angles = bond_angles(m, table_bonds(m))
    assert kinds.tolist() == [[8]] and angles.tolist() == pytest.approx([105], abs=1e-4)
    m = ideal.ethene(1.33)
    found = Geometry.of([m])
    assert {kind: len(v) for kind, v in found.lengths.items()} == {(6, 6, 2): 1, (1, 6, 1): 4}
    assert found.angles[(6,)].tolist() == pytest.approx([120] * 6, abs=1e-4)
    assert found.sizes.tolist() == [6] and found.elements.nonzero()[:, 0].tolist() == [1, 6]


def test_angles_of_a_line_and_a_tetrahedron() -> None:
    m = ideal.ethyne()
    assert Geometry.of([m]).angles[(6,)].tolist() == pytest.approx([180, 180])
    m = ideal.turned(ideal.methane())
    tetrahedral = math.degrees(math.acos(-1 / 3))
    assert Geometry.of([m]).angles[(6,)].tolist() == pytest.approx([tetrahedral] * 6, abs=1e-4)


def test_geometry_does_not_depend_on_the_frame_or_the_order() -> None:
    some = [m for m, _ in ideal.WHOLE.values()]
    a, b = Geometry.of(some), Geometry.of([ideal.turned(m, 5) for m in reversed(some)])
    assert a.distances(b) == pytest.approx(dict.fromkeys(a.distances(b), 0), abs=1e-4)


def test_wasserstein_distances_in_closed_form() -> None:
    """All bonds .02 Å longer, all angles 3° wider: the distances are just that."""
    reference = Geometry.of([ideal.water(0.95, 104), ideal.water(0.96, 106)])
    samples = Geometry.of([ideal.water(0.97, 107), ideal.water(0.98, 109)])
    row = samples.distances(reference)
    assert row["w1_bond_length"] == pytest.approx(0.02, abs=1e-6)
    assert row["w1_bond_angle"] == pytest.approx(3, abs=1e-4)
    assert row["w1_atoms"] == row["tv_elements"] == 0


def test_kinds_are_weighted_by_the_reference() -> None:
    """Ethene against ethene and methane with C–H .03 Å shorter, C=C .05 Å longer:

    C–H: four at 1.09 against four at 1.09 and four at 1.06, W₁ = .015; weights 8 and 1.
    """
    reference = Geometry.of([ideal.ethene(1.35), ideal.methane(1.06)])
    samples = Geometry.of([ideal.ethene(1.30)])
    row = samples.distances(reference)
    assert row["w1_bond_length"] == pytest.approx((8 * 0.015 + 0.05) / 9, abs=1e-6)
    assert row["w1_atoms"] == pytest.approx(0.5)  # 6 against 6 and 5
    # hydrogen: 4 of 6 against 8 of 11
    assert row["tv_elements"] == pytest.approx(8 / 11 - 4 / 6, abs=1e-6)
    far = Geometry.of([ideal.replaced(ideal.methane(), x=9 * ideal.methane().x)])
    assert set(far.distances(reference)) == {"w1_atoms", "tv_elements"}  # no bonds to compare


def test_total_variation() -> None:
    a, b = torch.tensor([1, 1, 0]), torch.tensor([0, 0, 7])
    assert total_variation(a, b) == 1 and total_variation(a, 3 * a) == 0
    assert total_variation(torch.tensor([3, 1]), torch.tensor([1, 1])) == pytest.approx(0.25)
