"""Tables of figures about texts: of small data sets by hand."""

from __future__ import annotations

import math

import pytest
import torch

from anylatent.core.modality.metrics import Metrics
from anylatent.core.support.files import UserError
from anylatent.modalities.text.metrics import divergence, evaluator, grams
from anylatent.modalities.text.texts import Text, Texts
from anylatent.modalities.text.tokenizer import BytePairs
from tests.modalities.text.few import Few, corpus_in, table

LETTERS = "abcd"


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path))
    for name, value in {"WIDTH": 16, "DEPTH": 1, "HEADS": 2, "RATE": 1e-2}.items():
        monkeypatch.setattr(evaluator, name, value)


def few(**settings) -> Few:
    return Few(["abab", "abc", "ba"], ["abcd", "ab", "cab", "d"], **settings)


def metrics(data=None, limit=100, steps=3) -> Metrics:
    return table(data or few(), limit=limit, steps=steps)


# ---- distances and copies ---------------------------------------------------------------------
def test_a_row_by_hand() -> None:
    """The first two samples against both texts of the reference, whichever they are."""
    found, data = metrics(), few()
    texts = data.texts("abab", "dd", "c")
    row = found.samples(texts, {})
    real = [text.tokens.tolist() for text in corpus_in(found).reference.texts]
    ours = [text.tokens.tolist() for text in texts[:2]]
    assert row["texts"] == len(real) == 2
    for n in (1, 2):
        assert row[f"divergence_{n}"] == divergence(grams(ours, n), grams(real, n))
    assert row["distinct_1"] == 3 / 6 and row["distinct_2"] == 3 / 4  # ab ba ab dd
    assert row["distinct_4"] == 1 and row["copied"] == 1 / 3  # of all three
    lengths = [sorted(map(len, part)) for part in (ours, real)]
    assert row["length_w1"] == sum(abs(a - b) for a, b in zip(*lengths, strict=True)) / 2
    assert all(isinstance(value, float) for value in row.values())
    assert not {"valid", "unique", "novel"} & set(row)


def test_the_same_texts_are_at_no_distance() -> None:
    found = metrics()
    row = found.samples(Texts(corpus_in(found).reference.texts), {})
    assert [row[f"divergence_{n}"] for n in (1, 2)] == [0, 0] and row["length_w1"] == 0


def test_other_symbols_are_one_bit_away_and_the_limit_holds() -> None:
    data = Few(["ab"], ["ab"] * 40 + ["ba"] * 40, ["ab", "cd"])
    row = metrics(data, limit=7).samples(data.texts(*["cdcd"] * 20), {})
    assert row["texts"] == 7 and row["length_w1"] == 2
    assert row["divergence_1"] == row["divergence_2"] == 1
    assert "divergence_3" not in row and "divergence_4" not in row  # held-out texts have two tokens
    assert row["distinct_3"] == 2 / 14 and row["distinct_4"] == 1 / 7


def test_fewer_samples_are_compared_with_as_few_held_out_texts() -> None:
    data = Few(["ab"], ["abcd", "a"] * 20)
    found = metrics(data)
    row = found.samples(data.texts("abcd"), {})
    first = corpus_in(found).reference.texts[0]
    assert row["texts"] == 1 and row["length_w1"] == abs(4 - len(first))


def test_a_copy_is_a_copy_of_the_text_not_of_the_tokens() -> None:
    """The same bytes by another path through the merges are the same text."""
    tokenizer = BytePairs([(97, 98)])
    data = Few(["abé"], ["ab", "b"], tokenizer=tokenizer)
    assert tokenizer.encode("ab") == [256]
    spelled = Text.of([97, 98, *"é".encode()], tokenizer)
    assert metrics(data).samples(Texts([spelled]), {})["copied"] == 1
    assert metrics(data).samples(data.texts("ab", "abé"), {})["copied"] == 1 / 2


# ---- likelihood -------------------------------------------------------------------------------
def test_likelihood_per_token_and_per_character(monkeypatch) -> None:
    """Under uniform logits a token costs log(V + 1): per character as many tokens as there are."""
    data = Few(["né"], ["né", "a"], tokenizer=BytePairs([]))
    monkeypatch.setattr(evaluator, "learn", _flat)
    row = metrics(data).samples(data.texts("né", "é"), {})
    assert row["evaluator_nll"] == pytest.approx(math.log(257), rel=1e-6)
    # 3 + 1 and 2 + 1 tokens, 2 + 1 and 1 + 1 characters
    assert row["evaluator_nll_character"] == pytest.approx(7 / 5 * math.log(257), rel=1e-6)


def _flat(texts, vocabulary, steps):
    state = evaluator._network(vocabulary).state_dict()
    return {name: torch.zeros_like(value) for name, value in state.items()}


def test_the_evaluator_learns_from_its_own_part_and_once(monkeypatch) -> None:
    seen, learn = [], evaluator.learn
    monkeypatch.setattr(evaluator, "learn", lambda *args: seen.append(args) or learn(*args))
    data = few(judged=["cc", "dd"])
    first = metrics(data).samples(data.texts("ab"), {})
    assert first == metrics(data).samples(data.texts("ab"), {}) and len(seen) == 1
    texts, vocabulary, steps = seen[0]
    assert [text.tolist() for text in texts] == [[2, 2], [3, 3]]
    assert (vocabulary, steps) == (4, 3)
    metrics(data, steps=2).samples(data.texts("ab"), {})
    other = few(judged=["cc", "dd"], name="other")
    metrics(other).samples(data.texts("ab"), {})
    assert len(seen) == 3


# ---- baselines --------------------------------------------------------------------------------
def test_baselines() -> None:
    data = Few(
        [f"abc{c}{d}cb" for c in LETTERS for d in LETTERS],
        [f"abc{c}{d}cba" for c in LETTERS for d in LETTERS],
    )
    found = metrics(data)
    rows = found.baselines()
    assert list(rows) == ["held-out", "training", "shuffled"]
    assert [rows[name]["texts"] for name in rows] == [8, 8, 8]
    assert [rows[name]["copied"] for name in rows][:2] == [0, 1]
    for name in ("held-out", "training"):
        assert rows[name]["divergence_4"] < rows["shuffled"]["divergence_4"]
    assert rows["shuffled"]["divergence_1"] == pytest.approx(rows["held-out"]["divergence_1"])
    assert rows["shuffled"]["length_w1"] == rows["held-out"]["length_w1"] == 0
    assert metrics(data).baselines() == rows
    assert set(rows["held-out"]) == set(found.samples(data.texts("abcd", "dcba"), {}))


def test_the_halves_share_nothing_and_shuffling_keeps_each_texts_tokens() -> None:
    data = Few(["a"], [LETTERS[: 1 + n % 4] * (1 + n) for n in range(25)])
    corpus = corpus_in(metrics(data))
    texts = [[t.text for t in p.texts] for p in (corpus.reference, corpus.held_out)]
    assert [len(part) for part in texts] == [12, 12] and not set(texts[0]) & set(texts[1])
    mixed = [text.text for text in corpus.shuffled.texts]
    assert mixed != texts[1]
    assert [sorted(text) for text in mixed] == [sorted(text) for text in texts[1]]
    again = corpus_in(metrics(data)).shuffled.texts
    assert [text.text for text in again] == mixed
    limited = corpus_in(metrics(data, limit=5))
    assert [t.text for t in limited.reference.texts] == texts[0][:5]


def test_the_notes_say_how_many_texts_are_compared() -> None:
    (note,) = metrics().notes
    assert "first 2 texts" in note


# ---- reconstructions --------------------------------------------------------------------------
def test_reconstructions_by_hand() -> None:
    data = few()
    row = metrics().reconstructions(
        data.texts("abcd", "ab", "cab", "d"), data.texts("abdd", "ab", "ab", "")
    )
    # in place: 3 of 4, 2 of 2, 0 of 3, 0 of 1; edits 1, 0, 1, 1
    assert row == {
        "tokens_restored": 5 / 10,
        "texts_restored": 1 / 4,
        "edit_distance": pytest.approx((1 / 4 + 0 + 1 / 3 + 1) / 4),
    }
    whole = data.texts("abcd", "")
    perfect = {"tokens_restored": 1, "texts_restored": 1, "edit_distance": 0}
    assert metrics().reconstructions(whole, whole) == perfect


# ---- errors -----------------------------------------------------------------------------------
def test_what_is_refused() -> None:
    data = few()
    for wrong in (torch.zeros(3), Texts(), ["abc"], "abc", None):
        with pytest.raises(ValueError, match="the figures need Texts"):
            metrics().samples(wrong, {})
    with pytest.raises(ValueError, match="2 originals do not fit 1"):
        metrics().reconstructions(data.texts("a", "b"), data.texts("a"))
    with pytest.raises(UserError, match="two held-out texts, and there are 1"):
        metrics(Few(["a"], ["b"])).samples(data.texts("a"), {})
    for name in ("limit", "steps"):
        with pytest.raises(ValueError, match=f"need {name} >= 1, got 0"):
            metrics(**{name: 0})
