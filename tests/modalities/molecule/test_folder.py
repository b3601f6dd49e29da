"""Folders of molecules: what is read, what is left out, and copies that stay together."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import anylatent as al
from anylatent.core.registry.store import part
from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.data import MoleculeFolder, Packed
from anylatent.modalities.molecule.data import folder as folder_module
from anylatent.modalities.molecule.data.skeletons import nearest, skeletons
from anylatent.modalities.molecule.files import write_sdf, write_xyz
from anylatent.modalities.molecule.molecule import Molecule

pytest.importorskip("rdkit", reason="rdkit is not installed")

SMILES = ("CCO", "c1ccccc1", "CC(=O)[O-]", "NCC(=O)O", "C#N", "CS(C)=O", "C1CC1O", "FC(F)Cl")
Build = Callable[..., tuple[Molecule, Any]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))


def pack(molecules: Sequence[Molecule]) -> Packed:
    return Packed(
        torch.cat([m.x for m in molecules]),
        torch.cat([m.z for m in molecules]),
        torch.cat([m.charge for m in molecules]),
        torch.tensor([len(m) for m in molecules]),
        [""] * len(molecules),
    )


@pytest.fixture
def root(tmp_path: Path, build: Build) -> Path:
    """Eight molecules, half of them in a sub-folder."""
    root = tmp_path / "data"
    for k, smiles in enumerate(SMILES):
        molecule, mol = build(smiles)
        place = root / ("deeper" if k % 2 else "")
        if k % 3:
            write_sdf(molecule, mol, place / f"{k}.sdf")
        else:
            write_xyz(molecule, place / f"{k}.xyz")
    return root


def read(root: Path, **settings: Any) -> MoleculeFolder:
    """A folder in which all is well."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = MoleculeFolder(str(root), **settings)
        data.train()
    return data


def all_items(data: MoleculeFolder) -> list[dict[str, Any]]:
    return [part[k] for part in (data.train(), data.held_out()) for k in range(len(part))]


def test_all_formats_below_the_folder(root: Path, build: Build) -> None:
    data = read(root, held_out=0.3)
    items = all_items(data)
    assert len(items) == 8 and not data.problems
    assert data.elements == ["H", "C", "N", "O", "F", "S", "Cl"] and -1 in data.facts["charges"]
    assert {"CC(=O)[O-]", "C#N"} <= {item["smiles"] for item in items}
    benzene, _ = build("c1ccccc1")
    (found,) = [item for item in items if item["atoms"] == 12 and item["smiles"] == "c1ccccc1"]
    wanted = torch.pdist(benzene.x)
    assert torch.allclose(torch.pdist(found["x"]), wanted, atol=1e-3)
    al.testing.check_data(data)
    heavy = read(root, held_out=0.3, hydrogens=False)
    assert "H" not in heavy.elements and heavy.fingerprint != data.fingerprint


def test_one_molecule_with_nothing_held_out(tmp_path: Path, build: Build) -> None:
    write_xyz(build("CCO")[0], tmp_path / "mine" / "ethanol.xyz")
    data = read(tmp_path / "mine", held_out=0)
    assert (len(data.train()), len(data.held_out())) == (1, 0)
    assert data.elements == ["H", "C", "O"] and data.facts["charges"] == [0]
    heavy = read(tmp_path / "mine", held_out=0, hydrogens=False)
    assert heavy.train()[0]["atoms"] == 3 and len(heavy.held_out()) == 0


def test_molecules_are_read_by_the_elements_and_charges_of_others(root: Path) -> None:
    """Unless they have some of their own, which no model of the others knows."""
    assert not {"elements", "charges"} & set(part("data", "molecule_folder").settings())
    own = read(root)
    elements, charges = ["H", "C", "N", "O", "F", "P", "S", "Cl"], [-1, 0, 1]
    data = read(root, elements=elements, charges=charges)
    assert data.facts["elements"] == data.elements == elements
    assert data.facts["charges"] == charges and own.facts["charges"] != charges
    assert data.fingerprint != own.fingerprint
    for a, b in zip(all_items(data), all_items(own), strict=True):
        symbols = [elements[k] for k in a["element"].tolist()]
        assert symbols == [own.elements[k] for k in b["element"].tolist()]
    few = read(root, elements=["H", "C"], charges=[0])
    assert few.elements == own.elements and few.facts["charges"] == own.facts["charges"]


def test_bad_molecules_are_counted_and_named(root: Path, build: Build) -> None:
    good, _ = build("CCO")
    crowded = good.x.clone()
    crowded[1] = crowded[0] + 0.1
    write_xyz(Molecule(crowded, good.z, good.charge), root / "crowded.xyz")
    (root / "alone.xyz").write_text("1\n\nHe 0 0 0\n")
    (root / "cut.sdf").write_text((root / "deeper" / "1.sdf").read_text()[:150])
    (root / "text.pdb").write_text("these are no atoms\n")
    (root / "nan.xyz").write_text("2\n\nC 0 0 nan\nO 0 0 1.2\n")
    (root / "notes.txt").write_text("not a molecule")
    (root / ".hidden.xyz").write_text("rubbish")
    data = MoleculeFolder(str(root), held_out=0.3)
    with pytest.warns(UserWarning, match="8 molecules were read, and 5 things left out") as record:
        assert len(all_items(data)) == 8
    assert len(record) == 1
    for name in ("crowded", "alone", "cut", "text", "nan"):
        assert name in str(record[0].message)
    assert "0.3 Å" in str(record[0].message) and "a single atom" in str(record[0].message)


def test_many_problems_are_not_all_listed(root: Path) -> None:
    for k in range(30):
        (root / f"bad{k:02d}.xyz").write_text("rubbish")
    with pytest.warns(UserWarning, match="30 things left out: .* and 20 more"):
        MoleculeFolder(str(root)).train()


def test_read_once_until_a_file_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(root)
    calls: list[Path] = []
    real = folder_module.read
    monkeypatch.setattr(
        folder_module, "read", lambda path, rules: calls.append(path) or real(path, rules)
    )
    again = read(root)
    assert not calls and again.fingerprint == first.fingerprint
    path = root / "0.xyz"
    os.utime(path, ns=(1, 1))
    assert read(root).fingerprint == first.fingerprint and not calls
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], f"{lines[1]} changed", *lines[2:]]))
    changed = read(root)
    assert len(calls) == 8 and changed.fingerprint != first.fingerprint


def turned(molecule: Molecule, seed: int) -> Molecule:
    """Rotated, moved, and with its atoms in another order."""
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    order = torch.randperm(len(molecule), generator=generator)
    x = molecule.x @ turn.T + torch.randn(3, generator=generator)
    return Molecule(x[order], molecule.z[order], molecule.charge[order])


@pytest.mark.parametrize("smiles", ["CCCCO", "CC(N)C(=O)O", "C1CCC1C"])
def test_copies_and_conformers_have_one_skeleton(smiles: str, build: Build) -> None:
    molecules = [build(smiles, seed)[0] for seed in (7, 8, 9)]
    copies = [turned(molecule, k) for k, molecule in enumerate(molecules)]
    assert len(set(skeletons(pack([*molecules, *copies])).tolist())) == 1


def test_skeletons_of_other_molecules_differ(build: Build) -> None:
    different = ["CCCO", "CC(C)O", "CCOC", "CCCN", "C1CC1O", "CCO", "CCCCO", "OCC1CC1", "CC1CC1O"]
    keys = skeletons(pack([build(smiles)[0] for smiles in different])).tolist()
    assert len(set(keys)) == len(different)
    same = ["CCC(=O)O", "CCC(=O)[O-]", "CCC(O)O", "C=CC(=O)O"]  # protons and orders apart
    assert len(set(skeletons(pack([build(smiles)[0] for smiles in same])).tolist())) == 1
    mirror = [build(smiles)[0] for smiles in ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O")]
    assert len(set(skeletons(pack(mirror)).tolist())) == 1


def test_copies_fall_into_one_part(root: Path, build: Build) -> None:
    for k, smiles in enumerate(SMILES):
        for seed in range(3):
            write_xyz(turned(build(smiles)[0], seed), root / f"copy{k}_{seed}.xyz")
    data = read(root, held_out=0.5, seed=1)
    kinds = [set(skeletons(part.packed).tolist()) for part in (data.train(), data.held_out())]
    assert all(kinds) and not kinds[0] & kinds[1] and len(kinds[0] | kinds[1]) == 8
    assert len(all_items(data)) == 32


def test_least_distances(build: Build) -> None:
    molecules = [build(smiles)[0] for smiles in ("CCO", "C#N", "CCO")]
    wanted = [float(torch.pdist(molecule.x).min()) for molecule in molecules]
    assert nearest(pack(molecules)).tolist() == pytest.approx(wanted, rel=1e-5)
    alone = Molecule(torch.zeros(1, 3), torch.tensor([2]), torch.tensor([0]))
    assert nearest(pack([alone])).tolist() == [torch.inf]


def test_wrong_folders(tmp_path: Path, build: Build) -> None:
    with pytest.raises(UserError, match=r"needs data.path=..., a folder of molecules \(.sdf"):
        MoleculeFolder()
    with pytest.raises(UserError, match="there is no folder"):
        MoleculeFolder(str(tmp_path / "nowhere"))
    (tmp_path / "a.xyz").write_text("rubbish")
    with pytest.raises(UserError, match="is a file: give the folder"):
        MoleculeFolder(str(tmp_path / "a.xyz"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no molecules in .*looked for .sdf .mol .xyz .pdb"):
        MoleculeFolder(str(tmp_path / "empty"))
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.xyz").write_text("rubbish")
    with pytest.raises(UserError, match="no molecule can be used.*a.xyz"):
        MoleculeFolder(str(bad)).train()
    write_xyz(build("CCO")[0], tmp_path / "one" / "a.xyz")
    with pytest.raises(UserError, match="1 molecules, of which 1 different ones, are too few"):
        MoleculeFolder(str(tmp_path / "one")).train()


def test_entries_that_are_no_molecules_are_named_too(root: Path) -> None:
    """Links that lead nowhere and files of other kinds, but no documents."""
    (root / "gone.xyz").symlink_to(root / "nowhere.xyz")
    (root / "other.odd").write_text("odd")
    (root / "README.md").write_text("about it")
    data = MoleculeFolder(str(root), held_out=0.3)
    with pytest.warns(UserWarning, match="8 molecules were read, and 2 things left out") as record:
        assert len(all_items(data)) == 8
    message = str(record[0].message)
    assert "gone.xyz: no such file or directory (links that lead nowhere)" in message
    assert "other.odd (of another kind)" in message and "README" not in message
