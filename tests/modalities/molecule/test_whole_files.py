"""Files of molecules as people have them: every atom is read, or the record is named.

Each kind has a good file beside the bad one, of which nothing is said.
"""

from __future__ import annotations

import pytest
import torch

from anylatent.modalities.molecule.files import formula, read_molecules
from tests.modalities.molecule.written import (
    bcif_bytes,
    cif_of_rows,
    cif_row,
    cif_text,
    hetatm,
    only,
    pdb_text,
    refused,
)

Chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")


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
