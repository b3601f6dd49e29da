"""Files of molecules as people have them: every atom is read, or the record is named.

Each kind has a good file beside the bad one, of which nothing is said.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import pytest
import torch

from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.data import MoleculeFolder
from anylatent.modalities.molecule.files import Rules, formula, read, read_molecules, write_xyz
from anylatent.modalities.molecule.files.bonded import lacks_hydrogen, near, pieces
from anylatent.modalities.molecule.molecule import Molecule
from tests.modalities.molecule.written import (
    bcif_bytes,
    cif_of_rows,
    cif_row,
    cif_text,
    hetatm,
    pdb_text,
)

Chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))


def only(path: Path, text: str) -> Molecule:
    """The one molecule of a good file."""
    path.write_text(text)
    (record,), problems = read_molecules(path)
    assert not problems
    return record.molecule


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_molecules(path)
    return str(error.value)


# ---- alternate locations ------------------------------------------------------------------------
FIXED = [("C1", "", 0.0, 1.0), ("O1", "", 1.4, 1.0)]


def site_texts(sites):
    """Sites (name, letter, x, occupancy[, residue name, number]) as PDB and as mmCIF."""
    pdb, cif = "", []
    for k, (name, letter, x, occupancy, *residue) in enumerate(sites, 1):
        comp, seq = residue or ("LIG", 1)
        pdb += hetatm(k, name, letter, (x, 0.5 * k, 0.2), name[0], occupancy, comp, seq)
        row = cif_row(k, name[0], (x, 0.5 * k, 0.2), "?", 1, letter or ".", name, f"{occupancy}")
        cif.append(row.replace(" LIG A . ", f" {comp} A {seq} "))
    return {"a.pdb": pdb + "END\n", "a.cif": cif_of_rows(cif)}


@pytest.mark.parametrize(
    ("sites", "kept"),
    [
        ([("N1", "B", 2.0, 0.5), ("N1", "C", 3.0, 0.5)], [2.0]),  # a tie: the first letter
        ([("N1", "B", 2.0, 0.4), ("N1", "C", 3.0, 0.6)], [3.0]),
        ([("N1", "2", 2.0, 0.3), ("N1", "1", 3.0, 0.3)], [3.0]),
        ([("N1", "A", 2.0, 0.2), ("N1", "B", 3.0, 0.8)], [3.0]),
        ([("N1", "C", 2.0, 0.3)], [2.0]),  # no other letter: always
        ([("N1", "", 2.0, 0.7), ("N1", "B", 3.0, 0.3)], [2.0]),  # the first one has no letter
        # a letter is taken as a whole, by its sum
        (
            [("N1", "A", 2.0, 0.6), ("N1", "B", 3.0, 0.4), ("F1", "A", 4.0, 0.1)]
            + [("F1", "B", 5.0, 0.5)],
            [3.0, 5.0],
        ),
        # two sets in one residue, which do not exclude one another
        (
            [("N1", "A", 2.0, 0.6), ("N1", "B", 3.0, 0.4), ("F1", "C", 4.0, 0.1)]
            + [("F1", "D", 5.0, 0.5)],
            [2.0, 5.0],
        ),
        # residues choose apart
        (
            [("N1", "A", 2.0, 0.6), ("N1", "B", 3.0, 0.4), ("N1", "A", 4.0, 0.1, "LIG", 2)]
            + [("N1", "B", 5.0, 0.5, "LIG", 2)],
            [2.0, 5.0],
        ),
        # two residues in one place
        ([("N1", "A", 2.0, 0.6, "SER", 2), ("F1", "B", 3.0, 0.4, "THR", 2)], [2.0]),
        # an atom of the losing letter alone goes with it
        ([("N1", "A", 2.0, 0.6), ("N1", "B", 3.0, 0.4), ("F1", "B", 4.0, 0.1)], [2.0]),
    ],
)
@pytest.mark.parametrize("name", ["a.pdb", "a.cif"])
def test_alternates_by_occupancy(name, sites, kept, tmp_path):
    found = only(tmp_path / name, site_texts([*FIXED, *sites])[name])
    assert found.x[:, 0].tolist() == [0.0, 1.4, *kept]


def test_a_garbled_occupancy_matters_among_alternates_only(tmp_path):
    plain = site_texts([*FIXED, ("N1", "", 2.0, 0.75)])["a.pdb"].replace("  0.75", "  ??? ")
    assert len(only(tmp_path / "a.pdb", plain)) == 3
    two = site_texts([*FIXED, ("N1", "A", 2.0, 0.5), ("N1", "B", 3.0, 0.5)])["a.pdb"]
    assert "is no occupancy" in refused(tmp_path / "a.pdb", two.replace("  0.50  ", "  ???   ", 1))


@pytest.mark.parametrize("skipped", [" Q1 ", "DUM"])
def test_atoms_that_rdkit_leaves_out_in_silence(skipped, tmp_path):
    """Pseudo-atoms by name; also those at 9999."""
    rows = "".join(hetatm(k, f" C{k}", "", (1.5 * k, 0.1 * k * k, k % 2), "C") for k in range(1, 4))
    assert len(only(tmp_path / "a.pdb", rows)) == 3
    other = rows.replace(" C2 ", skipped) if skipped[0] == " " else rows.replace("LIG", skipped)
    assert len(only(tmp_path / "a.pdb", other)) == 3
    far = rows + "HETATM    4  C4  LIG A   1    9999.0009999.0009999.000  1.00  0.00           C\n"
    assert "atom 4 is 1.732e+04 Å from the centre" in refused(tmp_path / "a.pdb", far)


def test_models_frames_and_what_is_outside_of_them(build, tmp_path):
    water = pdb_text(build("O")[0])
    path = tmp_path / "a.pdb"
    for several in (
        f"MODEL        1\n{water}ENDMDL\nMODEL        2\n{water}ENDMDL\nEND\n",
        f"{water}END\n{water}END\n",  # as trajectories are written
    ):
        path.write_text(several)
        records, problems = read_molecules(path)
        assert [len(record.molecule) for record in records] == [3, 3] and not problems
    path.write_text(f"MODEL        1\n{water}ENDMDL\n{water}END\n")
    records, problems = read_molecules(path)
    assert len(records) == 1 and "3 atoms stand outside of all models" in problems[0]
    assert "6 atoms stand outside" in refused(path, f"{water}ENDMDL\n{water}ENDMDL\n")
    first = water.splitlines(keepends=True)[0]
    split = water.replace("HETATM", "HET\nATM", 1)
    assert "is no line of one ATOM" in refused(path, split)
    lost = first.replace("HETATM", "HETXTM")
    assert "is no line of one ATOM" in refused(path, water.replace(first, lost))
    run_together = water.replace(first, first.rstrip("\n"))
    assert "is no line of one ATOM" in refused(path, run_together)
    assert len(only(path, "REMARK   4 HETATM and ATOM  records\n" + water)) == 3


def test_columns_of_a_pdb_that_are_shifted(tmp_path):
    row = hetatm(1, " C1", "", (1.5, -0.25, 0.125), "C")
    assert only(tmp_path / "a.pdb", row).x.tolist() == [[1.5, -0.25, 0.125]]
    assert "wanted a position" in refused(tmp_path / "a.pdb", row[:28] + " " + row[28:])


# ---- XYZ ----------------------------------------------------------------------------------------
BODY = "C 0.01 0.02 0.03\nO 0.04 0.05 1.13\n"
WANTED = [[0.01, 0.02, 0.03], [0.04, 0.05, 1.13]]


@pytest.mark.parametrize(
    ("comment", "rows"),
    [
        ("Properties=species:S:1:pos:R:3", BODY),
        ("properties=species:S:1:pos:R:3", BODY),
        ('Lattice="9 0 0 0 9 0 0 0 9" Properties="species:S:1:pos:R:3" pbc="F F F"', BODY),
        (
            "Properties=species:S:1:forces:R:3:pos:R:3 energy=-1.0",
            "C 9 8 7 0.01 0.02 0.03\nO 9 8 7 0.04 0.05 1.13\n",
        ),
        (
            "Properties=id:I:1:pos:R:3:fixed:L:1:species:S:1",
            "1 0.01 0.02 0.03 T C\n2 0.04 0.05 1.13 F O\n",
        ),
        ("Properties=pos:R:3:Z:I:1", "0.01 0.02 0.03 6\n0.04 0.05 1.13 8\n"),
        ("no properties at all", BODY),
        ("energy=3 my_properties=species:S:1", BODY),
    ],
)
def test_columns_of_extended_xyz(comment, rows, tmp_path):
    found = only(tmp_path / "a.xyz", f"2\n{comment}\n{rows}")
    assert found.x.tolist() == WANTED and found.z.tolist() == [6, 8]


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("Properties=species:S:1:forces:R:3", "has no species:S:1 and pos:R:3"),
        ("Properties=pos:R:3:tag:I:1", "has no species:S:1 and pos:R:3"),
        ("Properties=species:S:1:pos:R:2", "has no species:S:1 and pos:R:3"),
        ("Properties=species:S:1:pos:R", "has no species:S:1 and pos:R:3"),
        ("Properties=", "has no species:S:1 and pos:R:3"),
        ("Properties=species:S:1:pos:R:3:charge:R:1", "is no atom: wanted 5 columns"),
    ],
)
def test_headers_that_lack_what_is_needed(comment, message, tmp_path):
    said = refused(tmp_path / "a.xyz", f"2\n{comment}\n{BODY}")
    assert message in said and "a.xyz, record 1 of 1" in said


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.0*^-6", 1e-6), ("2.5*^2", 250.0), ("1.0D-6", 1e-6), ("-1.5d+01", -15.0), ("+.5E1", 5.0)]
    + [("3.", 3.0), ("-0", 0.0)],
)
def test_exponents(text, value, tmp_path):
    found = only(tmp_path / "a.xyz", f"2\n\nC 0 0 1\nO 0 0 {text}\n")
    assert found.x[1, 2].item() == value


@pytest.mark.parametrize(
    "text", ["1_0", "1,5", "0x1F", "1.0*-6", "٣", "1.0.0", "--1", "1e", "None"]
)
def test_what_is_no_number(text, tmp_path):
    assert "is no atom" in refused(tmp_path / "a.xyz", f"2\n\nC 0 0 1\nO 0 0 {text}\n")


QM9 = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 2.7661*^-4\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""


@pytest.mark.parametrize("copies", [1, 3])
def test_files_of_qm9(copies, tmp_path):
    (tmp_path / "a.xyz").write_text(QM9 * copies)
    records, problems = read_molecules(tmp_path / "a.xyz")
    assert [formula(record.molecule) for record in records] == ["CH4"] * copies and not problems
    assert records[0].molecule.x[2, 2].item() == 2.7661e-4
    cut = QM9[: QM9.index("InChI")]  # three lines are known; two are too many
    assert "5 atoms are announced, 7 are there" in refused(tmp_path / "a.xyz", cut)


def test_frames_do_not_take_lines_of_one_another(tmp_path):
    frame = "3\n2\nO 0 0 0\nH 0 0.9 0.1\nH 0.9 0 0.1\n"  # a comment may be a number
    lines = frame.splitlines(keepends=True)
    short, long = "".join(lines[:-1]), frame + lines[-1]
    (tmp_path / "a.xyz").write_text(frame + short + frame + long + "\n\n" + frame)
    records, problems = read_molecules(tmp_path / "a.xyz")
    assert [record.name for record in records] == ["a_1", "a_3", "a_5"]
    assert [problem.split(": ")[1] for problem in problems] == [
        "3 atoms are announced, 2 are there",
        "3 atoms are announced, 4 are there",
    ]
    digits = f"{'9' * 5000}\n\nC 0 0 0\n"
    assert "is no number of atoms" in refused(tmp_path / "b.xyz", digits)
    counted = "3\n\n1 6 0 0\n2 1 1 0\n3 1 0 1\n"
    assert "its first column counts the atoms" in refused(tmp_path / "b.xyz", counted)


def test_heavy_hydrogen_is_hydrogen(tmp_path):
    found = only(tmp_path / "a.xyz", "3\n\nO 0 0 0\nD 0 0.9 0.1\nt 0.9 0 0.1\n")
    assert found.z.tolist() == [8, 1, 1]


# ---- SDF: as many lines as are announced --------------------------------------------------------
def test_an_sdf_has_the_atoms_and_bonds_that_it_announces(build, tmp_path):
    block = Chem.MolToMolBlock(build("CCO")[1])
    lines = block.splitlines(keepends=True)
    path = tmp_path / "a.mol"
    assert len(only(path, block)) == 9
    blank = lines[5][:10] + " " * 10 + lines[5][20:]
    assert "records run together" in refused(path, block + block)
    damaged = "".join([*lines[:5], blank, *lines[6:]])
    assert "wanted a position in columns 1 to 30" in refused(path, damaged)
    for place in range(4, len(lines) - 1):
        for count in (0, 2):
            changed = [*lines[:place], *count * [lines[place]], *lines[place + 1 :]]
            assert "RDKit cannot parse it" in refused(path, "".join(changed))


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
    write.write_text(QM9)
    with pytest.raises(UserError, match="one of (refuse|keep), "):
        MoleculeFolder(str(tmp_path), **wrong)
    with pytest.raises(UserError, match="the larger last"):
        MoleculeFolder(str(tmp_path), nearest=2.0, farthest=1.0)


# ---- mmCIF --------------------------------------------------------------------------------------
def test_structures_of_mmcif(build, tmp_path):
    molecules = [build(smiles)[0] for smiles in ("CC(=O)[O-]", "CC(=O)[O-]")]
    for name in ("a.cif", "a.mmcif"):
        (tmp_path / name).write_text(cif_text(molecules))
        records, problems = read_molecules(tmp_path / name)
        assert [record.name for record in records] == ["a_1", "a_2"] and not problems
        for (_, got, _), wanted in zip(records, molecules, strict=True):
            assert torch.equal(got.z, wanted.z) and torch.equal(got.charge, wanted.charge)
            assert float((got.x - wanted.x).abs().max()) <= 0.0006


def test_structures_in_binary_are_those_in_text(build, tmp_path):
    molecules = [build(smiles)[0] for smiles in ("CC(=O)[O-]", "CS(C)=O")]
    (tmp_path / "a.cif").write_text(cif_text(molecules))
    (tmp_path / "a.bcif").write_bytes(bcif_bytes(molecules))
    text, binary = (read_molecules(tmp_path / f"a.{suffix}") for suffix in ("cif", "bcif"))
    assert not text[1] and not binary[1] and len(text[0]) == len(binary[0]) == 2
    for (name, a, _), (other, b, _) in zip(text[0], binary[0], strict=True):
        assert name == other and torch.equal(a.z, b.z) and torch.equal(a.charge, b.charge)
        assert float((a.x - b.x).abs().max()) < 1e-9


def test_both_kinds_of_mmcif_that_another_program_wrote(tmp_path):
    """Methionine of the component dictionary, with two places of its sulphur."""
    structure = pytest.importorskip("biotite.structure")
    from biotite.structure.io import pdbx

    atoms = structure.info.residue("MET")
    sulphur = atoms[atoms.atom_name == "SD"]
    sulphur.coord += 0.7
    both = atoms + sulphur
    both.hetero[:] = True
    both.set_annotation("altloc_id", ["A" if n == "SD" else "." for n in both.atom_name])
    both.altloc_id[-1] = "B"
    both.set_annotation("occupancy", [0.4 if alt == "A" else 0.6 for alt in both.altloc_id])
    for suffix, kind in (("cif", pdbx.CIFFile), ("bcif", pdbx.BinaryCIFFile)):
        file = kind()
        pdbx.set_structure(file, both, data_block="MET", extra_fields=["altloc_id", "occupancy"])
        file.write(tmp_path / f"a.{suffix}")
        (record,), problems = read_molecules(tmp_path / f"a.{suffix}")
        got, kept = record.molecule, both[both.altloc_id != "A"]
        assert not problems and formula(got) == "C5H11NO2S"
        assert float((got.x - torch.from_numpy(kept.coord).double()).abs().max()) < 1e-3


def test_one_atom_of_mmcif_without_a_loop(tmp_path):
    items = {"type_symbol": "NE", "Cartn_x": "1.5(3)", "Cartn_y": "-2", "Cartn_z": "'3e0'"}
    text = "data_neon # a comment\n" + "".join(f"_atom_site.{k} {v}\n" for k, v in items.items())
    found = only(tmp_path / "a.cif", text)
    assert found.z.tolist() == [10] and found.x.tolist() == [[1.5, -2.0, 3.0]]


COMPONENT = """data_MOH
_chem_comp.name 'METHANOL; "wood" spirit'
loop_
_chem_comp_atom.comp_id
_chem_comp_atom.atom_id
_chem_comp_atom.type_symbol
_chem_comp_atom.charge
_chem_comp_atom.model_Cartn_x
_chem_comp_atom.model_Cartn_y
_chem_comp_atom.model_Cartn_z
_chem_comp_atom.pdbx_model_Cartn_x_ideal
_chem_comp_atom.pdbx_model_Cartn_y_ideal
_chem_comp_atom.pdbx_model_Cartn_z_ideal
MOH C   C 0 9 8 7 -0.5 0.1 0.2
MOH "O'" O -1 9 8 6 0.9 0.1 0.3
"""


def test_chemical_components(tmp_path):
    (tmp_path / "a.cif").write_text(COMPONENT)
    ((name, found, _),), problems = read_molecules(tmp_path / "a.cif")
    assert (name, problems) == ("MOH", []) and found.charge.tolist() == [0, -1]
    assert found.x.tolist() == [[-0.5, 0.1, 0.2], [0.9, 0.1, 0.3]]
    other = COMPONENT.replace("-0.5 0.1 0.2", "? ? ?")  # ideal for all atoms, or for none
    assert only(tmp_path / "a.cif", other).x.tolist() == [[9, 8, 7], [9, 8, 6]]
    two = COMPONENT + COMPONENT.replace("MOH", "XYZ")
    (tmp_path / "a.cif").write_text(two)
    assert [record.name for record in read_molecules(tmp_path / "a.cif")[0]] == ["MOH", "XYZ"]


FRACTIONAL = "data_x\nloop_\n_atom_site_label\n_atom_site_fract_x\nC1 0.5\n"
BAD_CIF = {
    "text before": ("Dear Sir\ndata_x\n", "no CIF file"),
    "nothing": ("data_x\n_entry.id X\n", "no atoms: neither _atom_site nor _chem_comp_atom"),
    "crystal": (FRACTIONAL, "a crystal in fractional coordinates"),
    "row": (COMPONENT.rstrip().rsplit(" ", 1)[0], "19 values in 10 columns from"),
    "text": ("data_x\n_a.b\n;never ends\n", "does not end"),
    "value": ("data_x\n_a.b\n", "'_a.b' has no value"),
    "twice": ("data_x\n_a.b 1\n_a.b 2\n", "'_a.b' is there twice"),
    "element": (COMPONENT.replace("MOH C   C ", "MOH C   Qq "), "'Qq' is no known element"),
    "no place": (COMPONENT.replace("9 8 6 0.9", "9 8 ? ?"), "has no position: model_Cartn_z is ''"),
    "charge": (COMPONENT.replace(" O -1 ", " O x "), "'x' is no formal charge"),
    "not finite": (COMPONENT.replace("0.9", "inf"), "the position of atom 2 is not finite"),
}


@pytest.mark.parametrize("kind", BAD_CIF)
def test_bad_mmcif(kind, tmp_path):
    text, message = BAD_CIF[kind]
    assert message in refused(tmp_path / "a.cif", text)
