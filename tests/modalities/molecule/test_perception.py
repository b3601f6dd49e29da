"""Molecules of RDKit from positions: by the table, by RDKit's perception, as SMILES."""

from __future__ import annotations

import pytest
import torch

from anylatent.modalities.molecule.perception import (
    canonical,
    kekule_orders,
    mol_by_rdkit,
    mol_by_table,
    mol_of_bonds,
    table_bonds,
)
from tests.modalities.molecule import ideal

Chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")
WHOLE = pytest.mark.parametrize(("m", "smiles"), ideal.WHOLE.values(), ids=ideal.WHOLE.keys())


@WHOLE
def test_whole_molecules(m, smiles) -> None:
    for mol in (mol_by_table(m), mol_by_rdkit(m)):
        assert mol is not None and canonical(mol) == smiles
        assert [atom.GetAtomicNum() for atom in mol.GetAtoms()] == m.z.tolist()
        assert sum(atom.GetNumImplicitHs() for atom in mol.GetAtoms()) == 0
        positions = torch.tensor(mol.GetConformer().GetPositions())
        assert mol.GetConformer().Is3D() and torch.equal(positions, m.x.double())
    assert torch.equal(kekule_orders(mol_by_table(m)), table_bonds(m))


@WHOLE
def test_orders_and_smiles_do_not_depend_on_the_frame_or_the_order_of_atoms(m, smiles) -> None:
    for seed in range(3):
        other = ideal.turned(m, seed)
        assert table_bonds(other).sum(1).sort().values.tolist() == (
            table_bonds(m).sum(1).sort().values.tolist()
        )
        for find in (mol_by_table, mol_by_rdkit):
            assert canonical(find(other)) == smiles
            assert canonical(find(other), True) == canonical(find(m), True)


def test_table_bonds_by_hand() -> None:
    assert table_bonds(ideal.formaldehyde()).tolist() == [
        [0, 2, 1, 1],
        [2, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
    ]
    assert table_bonds(ideal.hydrogen_cyanide()).tolist() == [[0, 1, 0], [1, 0, 3], [0, 3, 0]]
    assert table_bonds(ideal.molecule("C", [[0.0, 0, 0]])).tolist() == [[0]]


def test_distances_are_exact_far_from_the_origin() -> None:
    """|a|² + |b|² - 2 a·b loses all digits there; float32 positions still have three."""
    far = ideal.replaced(ideal.water(), x=ideal.water().x + 1000)
    assert torch.equal(table_bonds(far), table_bonds(ideal.water()))


def test_benzene_is_aromatic_to_rdkit() -> None:
    """139.7 pm is above the table's limit for double bonds, so the table sees single ones."""
    m = ideal.benzene()
    mol = mol_by_rdkit(m)
    ring = [bond for bond in mol.GetBonds() if bond.GetIsAromatic()]
    assert len(ring) == 6 and canonical(mol) == "c1ccccc1"
    assert {bond.GetBondType() for bond in ring} == {Chem.BondType.AROMATIC}
    orders = kekule_orders(mol)
    assert orders.sum(1).tolist() == [4] * 6 + [1] * 6
    assert sorted(orders[:6, :6][orders[:6, :6] > 0].tolist()) == [1] * 6 + [2] * 6
    assert table_bonds(m)[:6, :6].max() == 1
    assert canonical(mol_by_table(m), hydrogens=True) != canonical(mol, hydrogens=True)


def test_kekule_orders_leave_the_molecule_as_it_was_and_make_it_again() -> None:
    m = ideal.benzene()
    mol = mol_by_rdkit(m)
    again = mol_of_bonds(m, kekule_orders(mol))
    assert canonical(again) == canonical(mol) == "c1ccccc1"
    assert sum(bond.GetIsAromatic() for bond in mol.GetBonds()) == 6
    zero = Chem.MolFromSmiles("[NH3]->[Fe]", sanitize=False)
    zero.GetBondWithIdx(0).SetBondType(Chem.BondType.ONEANDAHALF)
    with pytest.raises(ValueError, match="order 1.5: no Kekulé structure"):
        kekule_orders(zero)


def test_an_ion() -> None:
    m = ideal.ammonium()
    assert canonical(mol_by_table(m)) == canonical(mol_by_rdkit(m)) == "[NH4+]"
    assert mol_by_table(m, charged=False) is None  # N with four bonds
    neutral = ideal.replaced(m, charge=torch.zeros_like(m.z))
    assert mol_by_table(neutral) is None and mol_by_rdkit(neutral) is None


def test_a_zwitterion_is_found_by_rdkit_without_being_told() -> None:
    """Nitromethane: CH3-N(=O)-O with the charges +1 and -1, which add up to zero."""
    x = [[0, 0, 0], [1.49, 0, 0], [2.06, 1.08, 0], [2.06, -1.08, 0]]
    x += [[-0.36, 1.03, 0], [-0.36, -0.51, 0.89], [-0.36, -0.51, -0.89]]
    mol = mol_by_rdkit(ideal.molecule("CNOOHHH", x))
    assert canonical(mol) == "C[N+](=O)[O-]"
    carbon, nitrogen, *oxygen = kekule_orders(mol).sum(1).tolist()[:4]
    assert (carbon, nitrogen, sorted(oxygen)) == (4, 4, [1, 2])


def test_a_missing_hydrogen() -> None:
    """To the table valid, for RDKit fills in; RDKit's perception finds no bonds that do."""
    m = ideal.without(ideal.methane(), 4)
    assert mol_by_rdkit(m) is None
    assert canonical(mol_by_table(m)) == "C"
    whole = canonical(mol_by_table(ideal.methane()), hydrogens=True)
    assert canonical(mol_by_table(m), hydrogens=True) != whole


def test_a_stretched_bond_and_two_fragments() -> None:
    m = ideal.methane()
    stretched = ideal.moved(m, 1, 1.5 * m.x[1])
    assert table_bonds(stretched)[0].tolist() == [0, 0, 1, 1, 1]
    assert len(Chem.GetMolFrags(mol_by_rdkit(stretched))) == 2  # two ions
    two = ideal.joined(ideal.water(), ideal.ethene(), 6.0)
    assert canonical(mol_by_table(two)) == canonical(mol_by_rdkit(two)) == "C=C"  # the larger


def test_atoms_on_top_of_each_other() -> None:
    m = ideal.methane()
    both = ideal.moved(m, 1, m.x[2])
    assert int(table_bonds(both)[1, 2]) == 1
    assert mol_by_table(both) is None
    all_at_one = ideal.replaced(m, x=torch.zeros(5, 3))
    assert mol_by_table(all_at_one) is None and mol_by_rdkit(all_at_one) is None


def test_nothing_that_is_no_molecule_crashes() -> None:
    m = ideal.methane()
    for broken in (
        ideal.replaced(m, x=torch.full((5, 3), torch.nan)),
        ideal.replaced(m, x=m.x * torch.inf),
        ideal.replaced(m, z=torch.tensor([0, 1, 1, 1, 1])),
        ideal.replaced(m, z=torch.tensor([119, 1, 1, 1, 1])),
        ideal.replaced(m, z=torch.tensor([-6, 1, 1, 1, 1])),
        ideal.molecule("", []),
    ):
        assert mol_by_table(broken) is None and mol_by_rdkit(broken) is None
    alone = ideal.molecule("C", [[0.0, 0, 0]])
    assert canonical(mol_by_table(alone)) == "C" and mol_by_rdkit(alone) is None
    neon = ideal.molecule(["Ne"], [[0.0, 0, 0]])
    assert canonical(mol_by_rdkit(neon)) == "[Ne]"
    selenide = ideal.molecule(["Se", "H", "H"], [[0, 0, 0], [1.46, 0, 0], [0, 1.46, 0]])
    assert not table_bonds(selenide).any() and canonical(mol_by_rdkit(selenide)) == "[SeH2]"


def test_a_hydrogen_that_defines_stereochemistry_is_left_out_too() -> None:
    """Methanimine, H2C=NH: RDKit keeps the hydrogen on N where it knows which side it is on."""
    x = [[0, 0, 0], [1.27, 0, 0], [-0.58, 0.94, 0], [-0.52, -0.95, 0], [1.63, 0.95, 0]]
    assert canonical(mol_by_rdkit(ideal.molecule("CNHHH", x))) == "C=N"


def test_silence_that_ends(capfd) -> None:
    """RDKit's messages of failures are held back here, and not afterwards."""
    m = ideal.moved(ideal.methane(), 1, ideal.methane().x[2])
    assert mol_by_table(m) is None and mol_by_rdkit(m) is None
    assert capfd.readouterr().err == ""
    assert Chem.MolFromSmiles("C(C)(C)(C)(C)C") is None
    assert "valence" in capfd.readouterr().err
