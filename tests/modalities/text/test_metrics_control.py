"""Was a text given the class that was asked for? By RDKit, and by a classifier."""

from __future__ import annotations

import pytest
import torch

from anylatent.modalities.text.metrics import evaluator
from anylatent.modalities.text.metrics.control import labels
from tests.modalities.text.few import Few, corpus_in, table

NAMES = {"part": ("first", "second")}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path))
    for name, value in {"WIDTH": 16, "DEPTH": 1, "HEADS": 2, "RATE": 1e-2}.items():
        monkeypatch.setattr(evaluator, name, value)


# ---- what was asked ---------------------------------------------------------------------------
def test_labels_are_names_indices_or_nothing() -> None:
    columns = {"part": ["SECOND", 0, None, 1]}
    assert labels("part", NAMES["part"], columns, 4).tolist() == [1, 0, -1, 1]
    assert labels("part", NAMES["part"], {"part": torch.tensor([1, 0])}, 2).tolist() == [1, 0]
    assert labels("part", NAMES["part"], {"part": "first"}, 3).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="unknown part 'third': allowed are first, second"):
        labels("part", NAMES["part"], {"part": ["third"]}, 1)
    with pytest.raises(ValueError, match="2 entries for 3 texts"):
        labels("part", NAMES["part"], {"part": [0, 1]}, 3)


# ---- judged -----------------------------------------------------------------------------------
def speakers(seed: int, count: int):
    """Two speakers of the same letters: one alternates them, one repeats each.

    One letter of each text is an accident.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for place in range(count):
        label, half = place % 2, int(torch.randint(3, 6, (), generator=generator))
        text = "a" * half + "b" * half if label else "ab" * half
        accident = int(torch.randint(len(text), (), generator=generator))
        made.append((text[:accident] + "c" + text[accident + 1 :], {"part": label}))
    return made


def test_a_classifier_judges_texts(monkeypatch) -> None:
    data = Few(speakers(0, 50), speakers(1, 200), speakers(2, 600), classes=NAMES)
    found = table(data, steps=60)
    assert len(found.notes) == 1
    asked = {"part": [label["part"] for _, label in speakers(3, 100)]}
    texts = data.texts(*(text for text, _ in speakers(3, 100)))
    row = found.samples(texts, asked)
    assert row["judged_part"] > 0.9 and row["chance_part"] == 0.5
    assert "accuracy_part" not in row
    swapped = found.samples(texts, {"part": [1 - label for label in asked["part"]]})
    assert swapped["judged_part"] == pytest.approx(1 - row["judged_part"])
    _, note = found.notes
    assert note.startswith("judged_part: ") and "of 200 held-out texts" in note
    assert "frequent class: 50.0%" in note
    rows = found.baselines(["part", "length"])
    assert rows["held-out"]["judged_part"] > 0.9 > 0.75 > rows["shuffled"]["judged_part"]
    assert "judged_part" not in found.baselines()["held-out"]
    monkeypatch.setattr("anylatent.modalities.text.metrics.probe.fit", None)  # made once, kept
    assert table(data, steps=60).samples(texts, asked) == row


def test_what_was_not_asked_does_not_count() -> None:
    data = Few(speakers(0, 4), speakers(1, 40), speakers(2, 40), classes=NAMES)
    found, texts = table(data, steps=2), data.texts("abab", "aabb", "bbbb")
    assert not [name for name in found.samples(texts, {}) if "part" in name]
    assert not [n for n in found.samples(texts, {"part": [None] * 3}) if "part" in n]
    each = [found.samples(texts, {"part": [label, None, None]}) for label in (0, 1)]
    assert {row["judged_part"] for row in each} == {0, 1}  # the first text alone
    assert sum(row["chance_part"] for row in each) == pytest.approx(1)


# ---- computed ---------------------------------------------------------------------------------
RINGS = {"rings": ("0", "1", "2", "3 or more"), "aromatic": ("no", "yes"), "set": ("x", "y")}


def test_classes_of_smiles_are_computed() -> None:
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    label = {"rings": 0, "aromatic": 0, "set": 0}
    held_out = [("CC", label), ("CO", label), ("C1CC1", label), ("c1ccccc1", label)]
    data = Few([("C(=1", label)], held_out, kind="smiles", classes=RINGS)
    found = table(data, steps=2)
    texts = data.texts("C1CC1", "c1ccccc1", "CCO", "C1C")
    row = found.samples(texts, {"rings": [1, "1", 1, 0], "aromatic": [0, 1, "yes", None]})
    assert row["accuracy_rings"] == 2 / 4 and row["accuracy_aromatic"] == 2 / 3
    assert "judged_rings" not in row and not found.notes[1:]
    rings = corpus_in(found).reference.texts
    shares = sum("1" in text.text for text in rings) / len(rings)
    assert row["chance_rings"] == pytest.approx((3 * shares + 1 - shares) / 4)
    assert "judged_set" in found.samples(texts, {"set": [0, 1, 0, 0]})
    assert found.notes[1].startswith("judged_set")
