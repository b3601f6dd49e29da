"""Figures of real texts: SMILES of QM9, and verses."""

from __future__ import annotations

import math

import pytest

from anylatent.core.modality.metrics import Metrics
from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.text.data import Kjv, Smiles
from anylatent.modalities.text.metrics import evaluator
from anylatent.modalities.text.texts import Texts
from tests.modalities.text.few import corpus_in, table

STEPS = 150


def made(kind, **settings) -> Metrics:
    try:
        return table(kind(**settings), limit=400, steps=STEPS)
    except MissingPackage as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WIDTH": 64, "DEPTH": 2, "RATE": 1e-2}.items():
            patch.setattr(evaluator, name, value)
        patch.setattr(evaluator, "VERSION", "of tests")  # the cache is the usual one
        yield


def check(rows, vocabulary) -> None:
    """Held-out texts look like training texts to all figures, shuffled ones do not."""
    held_out, training, shuffled = (rows[name] for name in ("held-out", "training", "shuffled"))
    assert held_out["copied"] == 0 and training["copied"] == 1
    assert held_out["evaluator_nll"] == pytest.approx(training["evaluator_nll"], rel=0.05)
    assert held_out["evaluator_nll"] < min(
        0.9 * shuffled["evaluator_nll"], 0.9 * math.log(vocabulary + 1)
    )
    for n in (1, 2, 3, 4):
        assert held_out[f"divergence_{n}"] == pytest.approx(training[f"divergence_{n}"], abs=0.05)
    assert shuffled["divergence_1"] == pytest.approx(held_out["divergence_1"])
    assert shuffled["divergence_2"] > held_out["divergence_2"] + 0.02
    assert shuffled["length_w1"] == pytest.approx(held_out["length_w1"])


@pytest.mark.slow
def test_smiles() -> None:
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    found = made(Smiles)
    rows = found.baselines(["rings", "hetero"])
    check(rows, corpus_in(found).vocabulary)
    for name in ("held-out", "training"):
        assert rows[name]["valid"] == rows[name]["unique"] == rows[name]["accuracy_rings"] == 1
    assert rows["held-out"]["novel"] == 1 and rows["training"]["novel"] == 0
    assert rows["shuffled"]["valid"] < 0.3
    assert 0.25 < rows["held-out"]["chance_rings"] < 0.5
    some = Texts(corpus_in(found).held_out.texts)
    assert found.reconstructions(some, some)["molecules_restored"] == 1


@pytest.mark.slow
def test_verses() -> None:
    found = made(Kjv)
    rows = found.baselines(["testament"])
    check(rows, corpus_in(found).vocabulary)
    assert rows["held-out"]["judged_testament"] > rows["held-out"]["chance_testament"] + 0.1
    note = found.notes[1]
    assert note.startswith("judged_testament") and "of 800 held-out texts" in note
