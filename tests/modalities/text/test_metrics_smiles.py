"""Validity, uniqueness and novelty of SMILES by hand."""

from __future__ import annotations

import pytest

from anylatent.modalities.text.metrics import evaluator, smiles
from tests.modalities.text.few import Few, table

pytest.importorskip("rdkit", reason="rdkit is not installed")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path))
    for name, value in {"WIDTH": 16, "DEPTH": 1, "HEADS": 2}.items():
        monkeypatch.setattr(evaluator, name, value)


def test_shares_by_hand() -> None:
    """Ethanol spelled twice, benzene in two ways, methane that is known, three that are nothing."""
    strings = ["OCC", "CCO", "c1ccccc1", "C1=CC=CC=C1", "C", "C(", "", "C(C)(C)(C)(C)C"]
    known = set(smiles.keys(["[CH4]", "N", "not one"], 3).tolist())
    assert len(known) == 2
    assert smiles.shares(strings, known) == {
        "valid": 5 / 8,
        "unique": 3 / 5,
        "novel": 2 / 3,
        "valid_unique_novel": 2 / 8,
    }


def test_nothing_valid_is_neither_unique_nor_new() -> None:
    assert smiles.shares(["C(", "x"], set()) == {"valid": 0, "valid_unique_novel": 0}
    assert smiles.keys(["("], 1).tolist() == []


def test_keys_differ_and_last() -> None:
    assert smiles.key("C") != smiles.key("c") and -(2**63) <= smiles.key("é") < 2**63
    assert smiles.key("C") == 0x111B5DF3D5C0236B  # the head of its SHA-256, the lowest byte first
    found = smiles.keys(["CC", "C", "[CH3]C", "O"], 4)
    assert len(found) == 3 and bool((found.diff() > 0).all())


def test_the_same_molecule() -> None:
    assert smiles.same("OCC", "CCO") and not smiles.same("CCO", "CCN")
    assert not smiles.same("C(", "C(") and not smiles.same("", "")


def data() -> Few:
    return Few(["CO", "CC"], ["CCC", "CN", "C(N)1", "O"], kind="smiles")


def test_a_row_of_smiles() -> None:
    """A molecule of the training part in another spelling is no copy, and is not new."""
    row = table(data(), steps=2).samples(data().texts("OC", "CC", "CCN", "NCC", "C("), {})
    assert (row["valid"], row["copied"]) == (4 / 5, 1 / 5)
    assert row["unique"] == 3 / 4 and row["novel"] == pytest.approx(1 / 3)
    assert row["valid_unique_novel"] == 1 / 5


def test_the_rows_of_real_smiles() -> None:
    rows = table(data(), steps=2).baselines()
    assert rows["training"]["novel"] == 0 and rows["training"]["copied"] == 1
    assert rows["held-out"]["copied"] == 0
    assert rows["shuffled"].keys() - {"novel", "unique"} == rows["training"].keys() - {
        "novel",
        "unique",
    }


def test_restored_molecules() -> None:
    before, after = data().texts("CCO", "CN", "OC"), data().texts("OCC", "CN", "CC")
    row = table(data(), steps=2).reconstructions(before, after)
    assert row["molecules_restored"] == pytest.approx(2 / 3)
    assert row["texts_restored"] == pytest.approx(1 / 3)


def test_training_molecules_are_read_once(monkeypatch) -> None:
    table(data(), steps=2).samples(data().texts("CC"), {})
    monkeypatch.setattr(smiles, "keys", None)
    assert table(data(), steps=2).samples(data().texts("CC"), {})["novel"] == 0
