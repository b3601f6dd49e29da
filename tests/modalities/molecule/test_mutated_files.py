"""Damaged files of molecules: problems of one line, or all atoms, whatever was done to them."""

from __future__ import annotations

import random
import re
import time
import warnings

import pytest
import torch

from anylatent.modalities.molecule.data import MoleculeFolder
from anylatent.modalities.molecule.files import Rules, read, write_sdf, write_xyz
from anylatent.modalities.molecule.files import reading as reading_module
from tests.modalities.molecule.written import bcif_bytes, cif_text, pdb_text

Chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")

SMILES = ("CC(=O)Oc1ccccc1C(=O)O", "C[C@H]([NH3+])C(=O)[O-]", "CS(=O)(=O)Cl")
NUMBERS = ("0", "-1", "7", "1e400", "nan", "1.5D2", "2*^3", "99999999999", "", "1_0", "٣", "0x1F")
BYTES = bytes(range(256))
NUMBER = re.compile(rb"-?\d+\.?\d*")
RULES = Rules(nearest=0.3, farthest=100.0, least=2)


def flipped(data, random):
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        data[random.randrange(len(data))] = random.choice(BYTES)
    return bytes(data)


def without_line(data, random):
    lines = data.splitlines(keepends=True)
    del lines[random.randrange(len(lines))]
    return b"".join(lines)


def with_line_twice(data, random):
    lines = data.splitlines(keepends=True)
    place = random.randrange(len(lines))
    return b"".join([*lines[: place + 1], *lines[place:]])


def lines_swapped(data, random):
    lines = data.splitlines(keepends=True)
    i, j = random.randrange(len(lines)), random.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def cut(data, random):
    return data[: random.randrange(len(data))]


def other_number(data, random):
    found = list(NUMBER.finditer(data))
    if not found:
        return flipped(data, random)
    match = random.choice(found)
    return data[: match.start()] + random.choice(NUMBERS).encode() + data[match.end() :]


def inserted(data, random):
    place = random.randrange(len(data))
    return data[:place] + bytes(random.choices(BYTES, k=random.randrange(1, 9))) + data[place:]


ALL = (flipped, without_line, with_line_twice, lines_swapped, cut, other_number, inserted)
KEEP_COUNT = (flipped, lines_swapped, other_number)
"""What leaves as many atoms as there were; none may be lost without a word."""


def sources(suffix, build, folder):
    """Good files of a kind: their bytes and numbers of atoms."""
    built = [build(smiles) for smiles in SMILES]
    counts = [len(molecule) for molecule, _ in built]
    texts = []
    if suffix in ("sdf", "mol"):
        for k, (molecule, mol) in enumerate(built):
            write_sdf(molecule, mol, folder / f"{k}.sdf")
            texts.append((folder / f"{k}.sdf").read_text())
        v3000 = Chem.MolToV3KMolBlock(built[0][1])
        return [(texts[0], counts[0]), ("".join(texts), sum(counts)), (v3000, counts[0])]
    if suffix == "xyz":
        for k, (molecule, _) in enumerate(built):
            write_xyz(molecule, folder / f"{k}.xyz", "a comment")
            texts.append((folder / f"{k}.xyz").read_text())
        extended = texts[0].replace("a comment", "Properties=species:S:1:pos:R:3 energy=-1")
        tail = "100.1\t200.2\nCO\tCO\nInChI=1S/a\tInChI=1S/b\n"
        qm9 = texts[0].replace("a comment", "gdb 9\t157.7\t1.0").rstrip() + "\n" + tail
        several = [("".join(texts), sum(counts)), (qm9 + qm9, 2 * counts[0])]
        return [*several, (extended, counts[0])]
    if suffix == "pdb":
        models = "".join(
            f"MODEL     {k:4d}\n{pdb_text(molecule)}ENDMDL\n"
            for k, (molecule, _) in enumerate(built, 1)
        )
        plain = Chem.MolToPDBBlock(built[1][1])
        return [(plain, counts[1]), (models + "END\n", sum(counts))]
    write = {"bcif": bcif_bytes}.get(suffix, cif_text)
    return [(write([molecule for molecule, _ in built]), sum(counts))]


def check(path, data, wanted):
    """Reads a damaged file; `wanted` None: any number of atoms will do."""
    path.write_bytes(data)
    begun = time.perf_counter()
    found = read(path, RULES)
    assert time.perf_counter() - begun < 20
    assert found.records or found.problems
    for problem in found.problems:
        assert problem.startswith(path.name) and len(problem) < 400
        assert len(problem.splitlines()) == 1 and problem.isprintable()
    for _, molecule, _ in found.records:
        assert molecule.x.shape == (len(molecule), 3) and bool(molecule.x.isfinite().all())
        assert len(molecule.charge) == len(molecule) and molecule.z.dtype == torch.long
        assert 0 < int(molecule.z.min()) and int(molecule.z.max()) <= 118
    read_atoms = sum(len(record.molecule) for record in found.records)
    assert wanted is None or found.problems or read_atoms == wanted
    return found


def try_many(suffix, files, path, count, seed):
    refused = 0
    for k in range(count):
        chance = random.Random(f"{suffix} {seed} {k}")
        data, atoms = files[k % len(files)]
        change = ALL[(k // len(files)) % len(ALL)]
        found = check(path, change(data, chance), atoms if change in KEEP_COUNT else None)
        refused += not found.records
    return refused


def tried(suffix, build, folder, count, seed):
    files = [
        (text if isinstance(text, bytes) else text.encode(), atoms)
        for text, atoms in sources(suffix, build, folder)
    ]
    path = folder / f"damaged.{suffix}"
    for data, atoms in files:
        assert not check(path, data, atoms).problems  # as they were, all is well
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return try_many(suffix, files, path, count, seed)


READERS = ("sdf", "mol", "xyz", "pdb", "cif", "mmcif", "bcif")


@pytest.mark.parametrize("suffix", READERS)
def test_damage_is_told_in_a_line(suffix, build, tmp_path):
    refused = tried(suffix, build, tmp_path, 150, 0)
    assert 0 < refused < 150


@pytest.mark.slow
@pytest.mark.parametrize("suffix", READERS)
def test_much_damage_is_told_in_a_line(suffix, build, tmp_path):
    refused = tried(suffix, build, tmp_path, 3000, 1)
    assert 0 < refused < 3000


def test_a_folder_of_damage_ends_as_a_count(build, tmp_path):
    """Every file is a molecule that was read or is named in the warning's count."""
    root = tmp_path / "data"
    root.mkdir()
    ((data, _), *_) = sources("sdf", build, tmp_path)
    for k in range(40):
        chance = random.Random(k)
        (root / f"{k:02d}.sdf").write_bytes(ALL[k % len(ALL)](data.encode(), chance))
    (root / "good.sdf").write_text(data)
    folder = MoleculeFolder(str(root), held_out=0)
    with pytest.warns(UserWarning, match="things left out"):
        read_all = len(folder.train())
    assert read_all + len(folder.problems) >= 41 and 1 <= read_all < 41


def test_what_rdkit_throws_is_one_more_reason(build, tmp_path, monkeypatch):
    """Of any kind, for one record; those beside it are read."""
    molecule, mol = build("CCO")
    for k in range(3):
        write_sdf(molecule, mol, tmp_path / f"{k}.sdf")
    texts = [(tmp_path / f"{k}.sdf").read_text() for k in range(3)]
    (tmp_path / "all.sdf").write_text("".join(texts))
    real = reading_module.molfile.chemistry

    class Thrower:
        def MolFromMolBlock(self, text, **settings):  # noqa: N802
            if text.startswith("1\n"):
                raise RuntimeError("Pre-condition Violation\n\tbad bond")
            return real().MolFromMolBlock(text, **settings)

    monkeypatch.setattr(reading_module.molfile, "chemistry", Thrower)
    found = read(tmp_path / "all.sdf", RULES)
    assert [record.name for record in found.records] == ["0", "2"]
    reason = "RDKit cannot parse it (Pre-condition Violation bad bond)"
    assert found.problems == [f"all.sdf, record 2 of 3: {reason}"]
