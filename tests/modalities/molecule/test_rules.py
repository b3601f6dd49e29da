"""Drawings, fragments, missing hydrogens, atoms that are far or near: kept, cut down or refused.

Each kind has good molecules beside the bad one, of which nothing is said.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import pytest
import torch

from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.data import MoleculeFolder
from anylatent.modalities.molecule.files import Rules, read, write_xyz
from anylatent.modalities.molecule.files.bonded import lacks_hydrogen, near, pieces
from anylatent.modalities.molecule.molecule import Molecule
from tests.modalities.molecule.written import only, refused

Chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))


# ---- drawings -----------------------------------------------------------------------------------
DRAWN = ("Cc1ccccc1", "CCCC", "CC(C)C", "C1CCCCC1", "c1ccccc1", "OC(=O)C=C", "CC(N)C(=O)O", "CCO")
TITLES = {"no flag": "  ", "3D": "3D"}


def drawing(smiles, scale=1.0, hydrogens=False):
    from rdkit.Chem import rdDepictor

    mol = Chem.MolFromSmiles(smiles)
    mol = Chem.AddHs(mol) if hydrogens else mol
    rdDepictor.Compute2DCoords(mol)
    conformer = mol.GetConformer()
    conformer.SetPositions(conformer.GetPositions() * scale)
    return mol


@pytest.mark.parametrize("flag", TITLES)
@pytest.mark.parametrize("scale", [1.0, 2 / 3, 0.55, 1.1])
@pytest.mark.parametrize("smiles", DRAWN)
def test_drawings_by_their_geometry(smiles, scale, flag, tmp_path):
    """Of bonds 1.5, 1, 0.825 and 1.65 Å long, as programs have them; whatever the flag says."""
    for hydrogens in (False, True):
        mol = drawing(smiles, scale, hydrogens)
        text = Chem.MolToMolBlock(mol).replace("2D", TITLES[flag], 1)
        assert "a 2D drawing" in refused(tmp_path / "a.mol", text)
        kept = read(tmp_path / "a.mol", Rules(drawings="keep"))
        assert len(kept.records) == 1 and "drawings" in kept.told
        if mol.GetNumHeavyAtoms() > 3:  # without bonds three atoms are a plane, and no sign
            rows = [
                f"{a.GetSymbol()} " + " ".join(f"{v:.4f}" for v in x)
                for a, x in zip(mol.GetAtoms(), mol.GetConformer().GetPositions(), strict=True)
            ]
            text = f"{len(rows)}\n\n" + "\n".join(rows) + "\n"
            assert "a 2D drawing" in refused(tmp_path / "a.xyz", text)


FLAT = ("c1ccccc1", "C=C", "O=C", "c1ccncc1", "O", "NC=O", "c1ccc2ccccc2c1", "C=CC=C", "O=C=O")
FLAT += ("c1conc1", "c1nnn[nH]1", "c1nonc1", "N1C=NN=C1", "c1cnsc1")
FLAT += ("C#C", "OC=O", "c1ccoc1", "O=C(O)C=C", "c1ccsc1", "N#CC#N", "FC(F)=C(F)F", "[N-]=[N+]=O")


def in_plane(build, smiles):
    """The molecule turned into z = 0, where it is flat."""
    molecule, mol = build(smiles)
    _, _, axes = torch.linalg.svd(molecule.x.double())
    x = molecule.x.double() @ axes.T
    assert float(x[:, 2].abs().max()) < 0.05
    x[:, 2] = 0
    mol = Chem.Mol(mol)
    mol.GetConformer().SetPositions(x.numpy())
    return Molecule(x, molecule.z, molecule.charge), mol


@pytest.mark.parametrize("smiles", FLAT)
def test_molecules_that_are_flat(smiles, build, tmp_path):
    """With hydrogen and, as crystals have them, without."""
    molecule, mol = in_plane(build, smiles)
    heavy = Chem.RemoveHs(mol)
    write_xyz(molecule, tmp_path / "a.xyz")
    texts = [Chem.MolToMolBlock(mol), Chem.MolToPDBBlock(mol)]
    for name, text in zip(("a.mol", "a.pdb"), texts, strict=True):
        assert len(only(tmp_path / name, text)) == len(molecule)
    assert len(only(tmp_path / "a.xyz", (tmp_path / "a.xyz").read_text())) == len(molecule)
    found = only(tmp_path / "a.mol", Chem.MolToMolBlock(heavy))
    assert len(found) == heavy.GetNumAtoms()


# ---- fragments, hydrogens, far and near ---------------------------------------------------------
def placed(build, smiles, shift):
    molecule = build(smiles)[0]
    return Molecule(molecule.x + torch.tensor(shift), molecule.z, molecule.charge)


def together(*molecules):
    return Molecule(
        *(torch.cat([getattr(m, key) for m in molecules]) for key in ("x", "z", "charge"))
    )


def heavy_only(molecule):
    heavy = molecule.z > 1
    return Molecule(molecule.x[heavy], molecule.z[heavy], molecule.charge[heavy])


WHOLE = ("CCO", "C#N", "[C-]#[O+]", "c1ccccc1", "FC(F)(F)F", "CC(=O)[O-]", "C1CC12CC2", "N", "Br")


@pytest.mark.parametrize("smiles", WHOLE)
def test_missing_hydrogens_by_shape_and_by_bonds(smiles, build, tmp_path):
    molecule, mol = build(smiles)
    assert not lacks_hydrogen(molecule, near(molecule)[0])
    stripped = heavy_only(molecule)
    carbons = [a for a in mol.GetAtoms() if a.GetAtomicNum() == 6 and a.GetTotalNumHs(True)]
    if carbons and smiles != "C#N":
        assert lacks_hydrogen(stripped, near(stripped)[0])
    (tmp_path / "a.sdf").write_text(Chem.MolToMolBlock(mol))
    assert read(tmp_path / "a.sdf", Rules()).told == {}
    if carbons:
        (tmp_path / "a.sdf").write_text(Chem.MolToMolBlock(Chem.RemoveHs(mol)))
        assert list(read(tmp_path / "a.sdf", Rules()).told) == ["missing_hydrogens"]
        found = read(tmp_path / "a.sdf", Rules(missing_hydrogens="refuse"))
        assert found.problems == ["a.sdf, record 1 of 1: hydrogen atoms are missing"]


@pytest.mark.parametrize("smiles", [*WHOLE, "CC(=O)Oc1ccccc1C(=O)O", "C1C2CC1C2", "NN(C)C"])
def test_a_molecule_is_one_piece(smiles, build):
    molecule, _ = build(smiles)
    assert len(pieces(len(molecule), near(molecule)[0])) == 1


def test_pieces_by_distance_are_those_of_bonds(build):
    """Each pair of a water, a benzene and a chloride, 4 Å and more apart."""
    parts = [
        build("O")[0],
        placed(build, "c1ccccc1", [6.0, 0, 0]),
        placed(build, "[Cl-]", [0, 6.0, 0]),
    ]
    for size in (1, 2, 3):
        for chosen in itertools.combinations(parts, size):
            every = together(*chosen)
            found = pieces(len(every), near(every)[0])
            assert [len(piece) for piece in found] == [len(part) for part in chosen]
    sodium = Molecule(torch.tensor([[0.0, 0, 2.3]]), torch.tensor([11]), torch.tensor([1]))
    salt = together(build("CC(=O)[O-]")[0], sodium)  # near an oxygen, and no bond
    assert len(pieces(len(salt), near(salt)[0])) == 2


def test_a_salt_and_a_hydrate_of_a_folder(build, tmp_path):
    """`keep` says how many, `largest` cuts them down, `refuse` leaves them out."""
    root = tmp_path / "data"
    acid, water = build("CC(=O)[O-]")[0], placed(build, "O", [0.0, 0.0, 6.0])
    for k, smiles in enumerate(("CCO", "c1ccccc1", "CC#N")):
        write_xyz(build(smiles)[0], root / f"good{k}.xyz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(MoleculeFolder(str(root), held_out=0).train()) == 3
    write_xyz(together(acid, water), root / "hydrate.xyz")
    salt = Chem.CombineMols(build("CC(=O)[O-]")[1], Chem.MolFromSmiles("[Na+]"))
    salt.GetConformer().SetAtomPosition(7, [0.0, 0.0, 4.0])
    (root / "salt.mol").write_text(Chem.MolToMolBlock(salt))
    expected = {"keep": [7, 8, 9, 10, 12], "largest": [6, 7, 7, 9, 12], "refuse": [6, 9, 12]}
    expected["keep"] = sorted([9, 12, 6, 10, 8])
    for choice, sizes in expected.items():
        data = MoleculeFolder(str(root), fragments=choice, held_out=0)
        told = "2 in several pieces" if choice != "refuse" else "2 things left out: .*2 fragments"
        with pytest.warns(UserWarning, match=told):
            items = data.train()
        assert sorted(items.lengths.tolist()) == sorted(sizes)
        smiles = {items[k]["smiles"] for k in range(len(items))}
        assert ("CC(=O)[O-].[Na+]" in smiles) == (choice == "keep")
        assert ("CC(=O)[O-]" in smiles) == (choice == "largest")


def test_missing_hydrogens_of_a_folder(build, tmp_path):
    """Told where hydrogen is asked for; nothing to say without it."""
    root = tmp_path / "data"
    for k, smiles in enumerate(("CCO", "c1ccccc1", "CC#N")):
        write_xyz(build(smiles)[0], root / f"good{k}.xyz")
    write_xyz(heavy_only(build("CC(=O)O")[0]), root / "bare.xyz")
    with pytest.warns(UserWarning, match=r"1 without all of their hydrogen atoms .*keep\): bare"):
        assert len(MoleculeFolder(str(root), held_out=0).train()) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(MoleculeFolder(str(root), hydrogens=False, held_out=0).train()) == 4
    with pytest.warns(UserWarning, match="left out: bare.xyz, .*hydrogen atoms are missing"):
        data = MoleculeFolder(str(root), missing_hydrogens="refuse", held_out=0)
        assert len(data.train()) == 3


def test_atoms_that_are_far_or_near(build, tmp_path):
    root = tmp_path / "data"
    far = together(build("CCO")[0], placed(build, "O", [150.0, 0.0, 0.0]))
    write_xyz(build("CCO")[0], root / "good.xyz")
    write_xyz(far, root / "far.xyz")
    close = build("CC#N")[0]
    helium = Molecule(close.x[:1] + 0.1, torch.tensor([2]), torch.tensor([0]))
    write_xyz(together(close, helium), root / "close.xyz")
    with pytest.warns(UserWarning) as record:
        assert len(MoleculeFolder(str(root), held_out=0).train()) == 1
    (warning,) = record
    assert "2 things left out" in str(warning.message) and "Å from the centre" in str(
        warning.message
    )
    assert "nearer than 0.3 Å" in str(warning.message)
    with pytest.warns(UserWarning):
        data = MoleculeFolder(str(root), farthest=200.0, nearest=0.0, held_out=0)
        assert len(data.train()) == 3 and not data.problems


@pytest.mark.parametrize(
    "wrong", [{"fragments": "all"}, {"drawings": "largest"}, {"missing_hydrogens": "add"}]
)
def test_wrong_rules(wrong, tmp_path):
    write = tmp_path / "a.xyz"
    write_xyz(Molecule(torch.eye(3), torch.tensor([8, 1, 1]), torch.zeros(3).long()), write)
    with pytest.raises(UserError, match="one of (refuse|keep), "):
        MoleculeFolder(str(tmp_path), **wrong)
    with pytest.raises(UserError, match="the larger last"):
        MoleculeFolder(str(tmp_path), nearest=2.0, farthest=1.0)
