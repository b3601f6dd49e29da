"""Files of molecules whose text is not UTF-8: atoms are read, or refused, and lines are told."""

import warnings

import pytest
import torch

from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.data.folder import MoleculeFolder
from anylatent.modalities.molecule.files import Rules, read, read_molecules
from tests.modalities.molecule import ideal
from tests.modalities.molecule.written import cif_text, pdb_text

SIGN = "\N{REPLACEMENT CHARACTER}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))


def xyz_text(title):
    rows = zip("OHH", ideal.water().x.tolist(), strict=True)
    atoms = "".join(f"{symbol} {x:.4f} {y:.4f} {z:.4f}\n" for symbol, (x, y, z) in rows)
    return f"3\n{title}\n{atoms}"


def sdf_text(title):
    rows = zip("OHH", ideal.water().x.tolist(), strict=True)
    atoms = "".join(
        f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0\n"
        for symbol, (x, y, z) in rows
    )
    bonds = "  1  2  1  0\n  1  3  1  0\n"
    head = f"{title}\n  test          3D\n\n  3  2  0  0  0  0  0  0  0  0999 V2000\n"
    return f"{head}{atoms}{bonds}M  END\n$$$$\n"


TEXTS = {
    ".xyz": xyz_text,
    ".sdf": sdf_text,
    ".pdb": lambda title: f"REMARK   1 {title}\n" + pdb_text(ideal.water()) + "END\n",
    ".cif": lambda title: f"# {title}\n" + cif_text([ideal.water()]),
}


def written(folder, suffix, text, encoding):
    path = folder / f"water{suffix}"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("suffix", TEXTS)
def test_a_title_in_another_encoding_costs_no_molecule(tmp_path, suffix):
    path = written(tmp_path, suffix, TEXTS[suffix]("Öl, nass"), "latin-1")
    found = read(path, Rules())
    (record,) = found.records
    assert record.molecule.z.tolist() == [8, 1, 1] and not found.problems
    assert torch.allclose(record.molecule.x.float(), ideal.water().x, atol=1e-3)
    (told,) = found.told["encoding"]
    assert told.startswith(f"water{suffix}, line ") and "byte 0xd6" in told
    with pytest.warns(UserWarning, match=f"water{suffix}, line .: byte 0xd6 at place .*UTF-8"):
        read_molecules(path)


@pytest.mark.parametrize("suffix", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_are_no_part_of_the_text(tmp_path, suffix, encoding):
    path = written(tmp_path, suffix, TEXTS[suffix]("Öl, nass"), encoding)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (record,), problems = read_molecules(path)
    assert len(record.molecule) == 3 and not problems
    if suffix == ".sdf":
        assert record.name == "Öl, nass"


def test_an_encoding_that_is_said(tmp_path):
    path = written(tmp_path, ".sdf", sdf_text("Öl, nass"), "latin-1")
    found = read(path, Rules(encoding="latin-1"))
    assert found.records[0].name == "Öl, nass" and not found.told
    assert read(path, Rules()).records[0].name == f"{SIGN}l, nass"
    with pytest.raises(UserError, match="no such encoding"):
        Rules(encoding="latin-one")


@pytest.mark.parametrize(
    ("suffix", "old", "new"), [(".xyz", b"O 0", b"\xd6 0"), (".sdf", b" O  ", b" \xd6  ")]
)
def test_an_atom_that_is_no_text_is_refused_and_its_neighbours_are_read(tmp_path, suffix, old, new):
    good = TEXTS[suffix]("water").encode()
    assert good.count(old) == 1
    path = tmp_path / f"three{suffix}"
    path.write_bytes(good + good.replace(old, new) + good)
    found = read(path, Rules())
    assert len(found.records) == 2 and len(found.problems) == 1
    assert "record 2 of 3" in found.problems[0] and len(found.told["encoding"]) == 1


def test_a_folder_names_the_lines_and_how_to_read_them(tmp_path):
    root = tmp_path / "mine"
    root.mkdir()
    written(root, ".sdf", sdf_text("Öl, nass"), "latin-1")
    written(root, ".xyz", xyz_text("water"), "utf-16")
    with pytest.warns(UserWarning, match=r"1 lines that are no text.*\(data.encoding=\.\.\.\)"):
        assert len(MoleculeFolder(str(root), held_out=0).train()) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(MoleculeFolder(str(root), held_out=0, encoding="cp1252").train()) == 2
