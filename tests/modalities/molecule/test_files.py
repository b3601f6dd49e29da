"""Files of molecules: round trips through every format, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.files import formula, read_molecules, write_sdf, write_xyz
from anylatent.modalities.molecule.molecule import Molecule

Chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")

SMILES = {
    "benzene": "c1ccccc1",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "alanine": "C[C@H]([NH3+])C(=O)[O-]",
    "ammonium": "[NH4+]",
    "water": "O",
    "oxalate": "O=C([O-])C(=O)[O-]",
    "chlorobromide": "F[C@](Cl)(Br)C",
}
EACH = pytest.mark.parametrize("name", SMILES)


def canonical(mol):
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


def same(got, wanted, tolerance=1e-4):
    assert torch.equal(got.z, wanted.z) and got.z.dtype == torch.long
    assert torch.equal(got.charge, wanted.charge) and got.charge.dtype == torch.long
    assert got.x.dtype == torch.float64
    assert float((got.x - wanted.x).abs().max()) < tolerance


def water_at(shift, build):
    molecule, _ = build("O")
    return Molecule(molecule.x + torch.tensor(shift), molecule.z, molecule.charge)


# ---- round trips ------------------------------------------------------------------------------
@EACH
def test_sdf_there_and_back(name, build, tmp_path):
    molecule, mol = build(SMILES[name])
    path = tmp_path / f"{name}.sdf"
    write_sdf(molecule, mol, path)
    records, problems = read_molecules(path)
    assert not problems and len(records) == 1
    assert (records[0].name, records[0].smiles) == (name, canonical(mol))
    same(records[0].molecule, molecule)
    text = path.read_text()
    assert ">  <bonds>\ndistance table\n" in text and "V2000" in text
    other = next(iter(Chem.SDMolSupplier(str(path), removeHs=False)))  # as any program reads it
    assert other.GetConformer().Is3D() and other.GetProp("formula") == formula(molecule)
    assert canonical(other) == canonical(mol)


@EACH
@pytest.mark.parametrize("suffix", ("mol", "sdf", "pdb"))
def test_files_that_rdkit_wrote(name, suffix, build, tmp_path):
    molecule, mol = build(SMILES[name])
    write = {"mol": Chem.MolToMolBlock, "sdf": Chem.MolToMolBlock, "pdb": Chem.MolToPDBBlock}
    path = tmp_path / f"{name}.{suffix}"
    path.write_text(write[suffix](mol))
    ((found, got, smiles),), problems = read_molecules(path)
    assert not problems and found == name
    assert smiles == canonical(mol)
    centred = Molecule(got.x - got.x.mean(0), got.z, got.charge)
    same(centred, molecule, 2e-3 if suffix == "pdb" else 2e-4)  # pdb has three decimals


@EACH
def test_xyz_there_and_back_loses_bonds_and_charges_alone(name, build, tmp_path):
    molecule, _ = build(SMILES[name])
    path = tmp_path / f"{name}.xyz"
    write_xyz(molecule, path, "a comment\nof two lines")
    lines = path.read_text().splitlines()
    assert lines[0] == str(len(molecule)) and lines[1] == "a comment of two lines"
    assert len(lines) == len(molecule) + 2
    ((found, got, smiles),), problems = read_molecules(path)
    assert (found, smiles, problems) == (name, "", [])
    same(got, Molecule(molecule.x, molecule.z, torch.zeros_like(molecule.z)), 1e-5)


def test_an_sdf_without_bonds_keeps_atoms_and_charges(build, tmp_path):
    molecule, _ = build(SMILES["alanine"])
    write_sdf(molecule, None, tmp_path / "atoms.sdf")
    assert ">  <bonds>\nnone\n" in (tmp_path / "atoms.sdf").read_text()
    ((_, got, smiles),), _ = read_molecules(tmp_path / "atoms.sdf")
    same(got, molecule)
    assert smiles == ""
    other = next(iter(Chem.SDMolSupplier(str(tmp_path / "atoms.sdf"), removeHs=False)))
    assert other.GetNumBonds() == 0
    assert not any(atom.GetTotalNumHs() for atom in other.GetAtoms())  # none is made up


def test_bonds_say_where_they_are_from(build, tmp_path):
    molecule, mol = build("O")
    write_sdf(molecule, mol, tmp_path / "a.sdf", bonds="RDKit")
    assert ">  <bonds>\nRDKit\n" in (tmp_path / "a.sdf").read_text()


def test_positions_written_are_those_of_the_molecule(build, tmp_path):
    molecule, mol = build("CCO")
    moved = Molecule(molecule.x + 3, molecule.z, molecule.charge)
    write_sdf(moved, mol, tmp_path / "a.sdf")
    same(read_molecules(tmp_path / "a.sdf")[0][0].molecule, moved)
    with pytest.raises(ValueError, match="9 atoms for 3 atoms"):
        write_sdf(build("O")[0], mol, tmp_path / "b.sdf")


def test_a_thousand_atoms_and_far_positions_take_v3000(build, tmp_path):
    waters = [water_at([4.0 * i, 0.0, 1.0], build) for i in range(334)]
    many = Molecule(*(torch.cat([getattr(w, key) for w in waters]) for key in ("x", "z", "charge")))
    far = water_at([-23456.789, 0.0, 0.0], build)
    for name, molecule in (("many", many), ("far", far)):
        write_sdf(molecule, None, tmp_path / f"{name}.sdf")
        assert "V3000" in (tmp_path / f"{name}.sdf").read_text()
        same(read_molecules(tmp_path / f"{name}.sdf")[0][0].molecule, molecule, 5e-3)


def test_many_records_and_their_names(build, tmp_path):
    text = ""
    for name in ("benzene", "water"):
        write_sdf(*build(SMILES[name]), tmp_path / f"{name}.sdf")
        text += (tmp_path / f"{name}.sdf").read_text()
    nameless = "\n" + Chem.MolToMolBlock(build("CC")[1]).split("\n", 1)[1]
    (tmp_path / "all.sdf").write_text((text + nameless).replace("\n", "\r\n"), newline="")
    records, problems = read_molecules(tmp_path / "all.sdf")
    assert [record.name for record in records] == ["benzene", "water", "all_3"]
    assert [record.smiles for record in records] == ["c1ccccc1", "O", "CC"] and not problems


def test_frames_of_an_xyz(build, tmp_path):
    whole = ""
    for name in ("caffeine", "water"):
        write_xyz(build(SMILES[name])[0], tmp_path / "one.xyz", name)
        whole += (tmp_path / "one.xyz").read_text() + "\n"
    (tmp_path / "two.xyz").write_text(whole + "2\n\n17 0 0 0.5 0.1\n1 1e0 -2.5 0 left out\n")
    records, problems = read_molecules(tmp_path / "two.xyz")
    assert [len(record.molecule) for record in records] == [24, 3, 2] and not problems
    assert [record.name for record in records] == ["two_1", "two_2", "two_3"]
    assert records[2].molecule.z.tolist() == [17, 1]
    assert records[2].molecule.x.tolist() == [[0, 0, 0.5], [1, -2.5, 0]]


def test_models_of_a_pdb(build, tmp_path):
    _, mol = build(SMILES["alanine"])
    several = Chem.Mol(mol)
    second = Chem.Conformer(mol.GetConformer())
    second.SetAtomPosition(0, [9.0, 8.0, 7.0])
    several.AddConformer(second, assignId=True)
    (tmp_path / "two.pdb").write_text(Chem.MolToPDBBlock(several))
    records, problems = read_molecules(tmp_path / "two.pdb")
    assert [record.name for record in records] == ["two_1", "two_2"] and not problems
    assert all(record.smiles for record in records)
    assert records[1].molecule.x[0].tolist() == [9, 8, 7]
    assert torch.equal(records[0].molecule.x[1:], records[1].molecule.x[1:])


def test_pdb_bonds_without_orders_give_no_smiles(build, tmp_path):
    """Its double bonds are bonds written twice, which most programs don't do."""
    lines = Chem.MolToPDBBlock(build("C=C")[1]).splitlines()
    single = []
    for line in lines:
        if line.startswith("CONECT"):
            words = line.split()
            line = "CONECT" + "".join(f"{int(w):5d}" for w in dict.fromkeys(words[1:]))
        single.append(line)
    (tmp_path / "ethene.pdb").write_text("\n".join(single))
    ((_, molecule, smiles),), _ = read_molecules(tmp_path / "ethene.pdb")
    assert (len(molecule), smiles) == (6, "")


@pytest.mark.parametrize("smiles", [*SMILES.values(), "[Na+]", "CC(=O)Oc1ccccc1C(=O)O", "Br"])
def test_formula_against_rdkit(smiles):
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    z = torch.tensor([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    charge = torch.tensor([atom.GetFormalCharge() for atom in mol.GetAtoms()])
    assert formula(Molecule(torch.zeros(len(z), 3), z, charge)) == CalcMolFormula(mol)


# ---- what cannot be read ----------------------------------------------------------------------
def block(mol, **changes):
    text = Chem.MolToMolBlock(mol)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_a_broken_record_is_named_and_the_good_ones_stay(build, tmp_path, capfd):
    good, ammonium = block(build("O")[1]), block(build("[NH4+]")[1])
    broken = [block(build("C")[1], C="Qq"), good[:200] + "\n", "not a record\n"]
    texts = [good, broken[0], broken[1], ammonium, broken[2]]
    (tmp_path / "mixed.sdf").write_text("$$$$\n".join(texts))
    records, problems = read_molecules(tmp_path / "mixed.sdf")
    assert [record.smiles for record in records] == ["O", "[NH4+]"]
    assert [record.name for record in records] == ["mixed_1", "mixed_4"]
    assert [problem.split(":")[0] for problem in problems] == [
        f"mixed.sdf, record {place} of 5" for place in (2, 3, 5)
    ]
    assert all("cannot parse" in problem for problem in problems)
    assert capfd.readouterr().err == ""  # nothing goes past us to the terminal


def test_a_drawing_is_no_molecule_in_space(build, tmp_path):
    from rdkit.Chem import rdDepictor

    flat = Chem.MolFromSmiles("c1ccccc1")
    rdDepictor.Compute2DCoords(flat)
    (tmp_path / "flat.mol").write_text(Chem.MolToMolBlock(flat))
    with pytest.raises(ValueError, match=r"flat\.mol, record 1 of 1: a 2D drawing"):
        read_molecules(tmp_path / "flat.mol")
    unflagged = Chem.AddHs(Chem.MolFromSmiles("CC"))
    rdDepictor.Compute2DCoords(unflagged)
    (tmp_path / "flat.mol").write_text(block(unflagged, **{"2D": "  "}))
    with pytest.raises(ValueError, match="a 2D drawing"):  # carbon has four neighbours in a plane
        read_molecules(tmp_path / "flat.mol")
    (tmp_path / "flat.mol").write_text(Chem.MolToMolBlock(Chem.MolFromSmiles("CO")))  # all zero
    with pytest.raises(ValueError, match="a 2D drawing"):
        read_molecules(tmp_path / "flat.mol")


def test_a_molecule_that_is_flat_is_read(tmp_path):
    angles = torch.arange(6) * torch.pi / 3
    ring = torch.stack([angles.cos(), angles.sin(), torch.zeros(6)], 1)
    molecule = Molecule(
        torch.cat([1.397 * ring, 2.48 * ring]),
        torch.tensor([6] * 6 + [1] * 6),
        torch.zeros(12).long(),
    )
    write_sdf(molecule, None, tmp_path / "flat.sdf")
    same(read_molecules(tmp_path / "flat.sdf")[0][0].molecule, molecule)
    one = Molecule(torch.zeros(1, 3), torch.tensor([10]), torch.zeros(1).long())
    write_sdf(one, None, tmp_path / "neon.sdf")
    same(read_molecules(tmp_path / "neon.sdf")[0][0].molecule, one)


BAD = {
    "empty.sdf": (b"", "is empty"),
    "empty.xyz": (b"\n\n", "is empty"),
    "empty.pdb": (b"", "is empty"),
    "noise.sdf": (bytes(range(256)) * 9, "cannot parse"),
    "noise.xyz": (bytes(range(256)) * 9, "is no number of atoms"),
    "noise.pdb": (bytes(range(256)) * 9, "no atoms"),
    "cut.pdb": (b"HETATM    1  C1  UNL     1       0.0", "wanted a position in columns 31"),
    "words.pdb": (b"Dear Sir,\nATOMS are enclosed\n", "no atoms"),
    "words.mol": (b"Dear Sir,\n\nplease find enclosed\n", "cannot parse"),
    "cut.xyz": (b"3\n\nO 0 0 0\nH 0 0 1\n", "3 atoms are announced, 2 are there"),
    "line.xyz": (b"1\n\nO 0 0\n", "'O 0 0' is no atom: wanted a symbol and three numbers"),
    "none.xyz": (b"0\n\n", "'0' is no number of atoms"),
    "element.xyz": (b"2\n\nO 0 0 0\nQq 0 0 1\n", "'Qq' is no known element"),
    "number.xyz": (b"1\n\n119 0 0 0\n", "'119' is no known element"),
    "nan.xyz": (b"2\n\nO 0 0 0\nH 0 nan 1\n", "the position of atom 2 is not finite"),
    "table.csv": (b"x,y\n", "is none of .sdf, .mol, .xyz, .pdb"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, tmp_path):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_molecules(tmp_path / name)
    assert message in str(error.value) and str(tmp_path / name) in str(error.value)


def test_dummy_atoms_and_lost_atoms_are_named(build, tmp_path):
    path = tmp_path / "a.sdf"
    lines = Chem.MolToMolBlock(build("CCO")[1]).splitlines()
    lines[5] = lines[5][:31] + "*  " + lines[5][34:]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"atom 2 is of no known element \('\*'\)"):
        read_molecules(path)
    water, _ = build("O")
    x = water.x.clone()
    x[1, 0] = torch.nan
    write_sdf(Molecule(x, water.z, water.charge), None, path)
    with pytest.raises(ValueError, match="record 1 of 1"):
        read_molecules(path)


@pytest.mark.parametrize("suffix", ("sdf", "xyz"))
def test_a_file_cut_anywhere_is_never_a_smaller_molecule(suffix, build, tmp_path):
    molecule, mol = build(SMILES["ammonium"])
    whole = tmp_path / f"whole.{suffix}"
    (write_xyz(molecule, whole) if suffix == "xyz" else write_sdf(molecule, mol, whole))
    text, cut = whole.read_text(), tmp_path / f"cut.{suffix}"
    refused = 0
    for end in range(len(text)):
        cut.write_text(text[:end])
        try:
            ((_, got, _),), _ = read_molecules(cut)
        except ValueError:
            refused += 1
            continue
        assert torch.equal(got.z, molecule.z) and torch.equal(got.charge[1:], molecule.charge[1:])
    assert refused > 0.6 * len(text)


def test_a_pdb_cut_anywhere_has_no_atom_in_a_wrong_place(build, tmp_path):
    """Lines that are missing altogether can't be noticed."""
    path, text = tmp_path / "a.pdb", Chem.MolToPDBBlock(build(SMILES["ammonium"])[1])
    path.write_text(text)
    ((_, whole, _),), _ = read_molecules(path)
    refused = 0
    for end in range(len(text)):
        path.write_text(text[:end])
        try:
            ((_, got, smiles),), _ = read_molecules(path)
        except ValueError:
            refused += 1
            continue
        assert torch.equal(got.z, whole.z[: len(got)]) and torch.equal(got.x, whole.x[: len(got)])
        assert smiles in ("", "[NH4+]", "N")  # a cut charge can't be noticed either
    assert refused > 5 * 45


def test_bonds_that_rdkit_rejects_cost_the_smiles_alone(build, tmp_path):
    molecule, mol = build("C")
    five = Chem.RWMol(mol)
    five.AddBond(1, 2, Chem.BondType.SINGLE)
    write_sdf(molecule, five.GetMol(), tmp_path / "a.sdf")
    ((_, got, smiles),), problems = read_molecules(tmp_path / "a.sdf")
    same(got, molecule)
    assert (smiles, problems) == ("", [])


def test_a_failed_write_leaves_the_old_file(build, tmp_path: Path, monkeypatch):
    molecule, mol = build("O")
    paths = [tmp_path / "a.sdf", tmp_path / "a.xyz"]

    def write():
        write_sdf(molecule, mol, paths[0])
        write_xyz(molecule, paths[1])

    write()
    before = [path.read_bytes() for path in paths]
    molecule = build("C")[0]

    def full(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anylatent.core.support.files.os.replace", full)
    with pytest.raises(UserError, match="the old file is untouched"):
        write_sdf(molecule, None, paths[0])
    with pytest.raises(UserError, match="the old file is untouched"):
        write_xyz(molecule, paths[1])
    assert [path.read_bytes() for path in paths] == before
    assert sorted(tmp_path.iterdir()) == sorted(paths)
