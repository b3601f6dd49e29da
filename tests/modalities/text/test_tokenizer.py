"""Tokenizers: nothing is lost, nothing is executed."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anylatent.core.support.files import UserError
from anylatent.modalities.text.tokenizer import BytePairs, Symbols, Tokenizer

VERSES = [
    "In the beginning God created the heaven and the earth.",
    "And God said, Let there be light: and there was light.",
    "And God saw the light, that it was good.",
]
TRAINED = BytePairs.train(VERSES, 300)


# ---- byte pairs -------------------------------------------------------------------------------
@settings(max_examples=100, deadline=None)
@given(st.text())
def test_byte_pairs_lose_nothing(text):
    tokens = TRAINED.encode(text)
    assert TRAINED.decode(tokens) == text
    assert all(0 <= token < TRAINED.size for token in tokens)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=5), st.integers(256, 290))
def test_any_corpus_can_be_learned_from(texts, vocabulary):
    tokenizer = BytePairs.train(texts, vocabulary)
    assert 256 <= tokenizer.size <= vocabulary
    again = Tokenizer.from_json(tokenizer.to_json())
    for text in [*texts, "something else"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert again.encode(text) == tokenizer.encode(text)


def test_first_tokens_are_the_bytes_and_others_join_two():
    merges = [(97, 98), (256, 99)]  # ab, abc
    tokenizer = BytePairs(merges)
    assert tokenizer.size == 258
    assert tokenizer.encode("abcab c") == [257, 256, 32, 99]
    assert tokenizer.decode([257, 0, 65]) == "abc\0A"
    assert BytePairs([]).encode("é ") == [0xC3, 0xA9, 0x20]
    assert BytePairs([]).decode([0xC3, 65]) == "\N{REPLACEMENT CHARACTER}A"


def test_merges_with_the_same_bytes_are_one_token():
    tokenizer = BytePairs([(97, 98), (98, 99), (256, 99), (97, 257)])  # ab, bc, ab+c, a+bc
    assert tokenizer.size == 259 and tokenizer.decode([258]) == "abc"
    assert tokenizer.decode(tokenizer.encode("abcbc")) == "abcbc"


def test_the_most_frequent_pair_is_joined_first():
    tokenizer = BytePairs.train(["aaab aab", "ab"], 257)
    assert tokenizer.merges == [(97, 97)] or tokenizer.merges == [(97, 98)]
    counted = BytePairs.train(["xy xy xy ab"], 257)
    assert counted.merges == [(ord("x"), ord("y"))]


def test_one_word_of_any_length_is_no_harm():
    """A line of dashes, a sequence of DNA: merges of merges double."""
    word = "-" * 30_000
    tokenizer = BytePairs.train([*VERSES, word], 300)
    assert tokenizer.decode(tokenizer.encode(word)) == word
    assert max(len(tokenizer.decode([token])) for token in range(tokenizer.size)) <= 4096


def test_a_space_goes_with_the_word_after_it():
    pieces = [TRAINED.decode([token]) for token in TRAINED.encode("And God said the light")]
    assert "".join(pieces) == "And God said the light" and " God" in pieces and " the" in pieces
    assert all(" " not in piece[1:] for piece in pieces)


def test_training_is_deterministic_and_shortens():
    assert BytePairs.train(VERSES, 300).merges == TRAINED.merges
    for verse in VERSES:
        assert len(TRAINED.encode(verse)) < 0.7 * len(verse)


# ---- symbols ----------------------------------------------------------------------------------
def test_smiles_are_split_into_atoms_bonds_and_rings():
    text = "C[C@@H](Br)Cl%12=[13CH3+]c1nBr"
    tokenizer = Symbols.train([text])
    pieces = [tokenizer.alphabet[token] for token in tokenizer.encode(text)]
    expected = "C [C@@H] ( Br ) Cl %12 = [13CH3+] c 1 n Br"
    assert pieces == expected.split()
    assert tokenizer.alphabet == tuple(sorted(set(pieces))) and tokenizer.decode([0, 1]) == "%12("


def test_an_unknown_symbol_is_an_error_that_names_it():
    tokenizer = Symbols.train(["CCO"])
    with pytest.raises(UserError, match="'CN' has 'N', which is no token of this model.*C O"):
        tokenizer.encode("CN")


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1))
def test_symbols_lose_nothing(text):
    tokenizer = Symbols.train([text])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert Tokenizer.from_json(tokenizer.to_json()).alphabet == tokenizer.alphabet


# ---- JSON -------------------------------------------------------------------------------------
def test_json_survives_a_configuration():
    """OmegaConf would resolve ${...}."""
    from omegaconf import OmegaConf

    tokenizer = Symbols.train(["C[${oc.env:HOME}]$1"])
    saved = OmegaConf.to_yaml(OmegaConf.create({"tokenizer": tokenizer.to_json()}))
    read = OmegaConf.to_container(OmegaConf.create(saved), resolve=True)
    assert Tokenizer.from_json(read["tokenizer"]).alphabet == tokenizer.alphabet


DOUBLING = [[97, 97], *([256 + k, 256 + k] for k in range(60))]
BAD = {
    "nothing": "",
    "no JSON": "{",
    "another thing": "[1, 2]",
    "number": "7",
    "unknown kind": json.dumps({"kind": "os.system", "entries": ["ls"]}),
    "more keys": json.dumps({"kind": "symbols", "entries": ["C"], "_target_": "os.system"}),
    "no list": json.dumps({"kind": "byte_pairs", "entries": {"a": 1}}),
    "kind is a list": json.dumps({"kind": ["symbols"], "entries": ["C"]}),
    "no alphabet": json.dumps({"kind": "symbols", "entries": []}),
    "twice": json.dumps({"kind": "symbols", "entries": ["C", "C"]}),
    "no symbol": json.dumps({"kind": "symbols", "entries": ["CC"]}),
    "empty symbol": json.dumps({"kind": "symbols", "entries": [""]}),
    "number as symbol": json.dumps({"kind": "symbols", "entries": [3]}),
    "token of the future": json.dumps({"kind": "byte_pairs", "entries": [[97, 256]]}),
    "negative": json.dumps({"kind": "byte_pairs", "entries": [[97, -1]]}),
    "fraction": json.dumps({"kind": "byte_pairs", "entries": [[97, 1.5]]}),
    "truth": json.dumps({"kind": "byte_pairs", "entries": [[True, 1]]}),
    "three": json.dumps({"kind": "byte_pairs", "entries": [[97, 98, 99]]}),
    "one": json.dumps({"kind": "byte_pairs", "entries": [5]}),
    "a bomb": json.dumps({"kind": "byte_pairs", "entries": DOUBLING}),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "_"))
def test_what_is_no_tokenizer_is_an_error(case):
    with pytest.raises(UserError, match="this is no tokenizer of anylatent"):
        Tokenizer.from_json(BAD[case])


SPACED = [" ", "  ", "\t", "\r", "\x1c", "\x85", "\xa0", "\u1680", "\u2028", "\u3000", "\u200b"]
SIGNS = [*SPACED, "a", "the", "É", "雪", "1", "²", "'s", "'ll", "'", "!", "..", "\u0301", "😀"]


@given(st.lists(st.lists(st.sampled_from(SIGNS)).map("".join), min_size=1))
@settings(deadline=None)
def test_words_that_are_known_have_the_tokens_of_the_whole_text(texts):
    tokenizer = BytePairs.train([*texts, "the snow, the 'snow's'  the"], 300)
    for text in [*texts, *texts]:
        whole = tokenizer._encoder.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == whole


@given(st.lists(st.lists(st.sampled_from(SIGNS)).map("".join)))
@settings(deadline=None)
def test_many_texts_at_once_are_each_alone(texts):
    for tokenizer in (TRAINED, Symbols("athe!.")):  # the second has no token for most of them
        sizes, tokens = tokenizer.encode_all(texts)
        pieces = np.split(tokens, np.maximum(sizes, 0).cumsum())
        assert len(pieces) == len(texts) + 1 and not len(pieces[-1])
        for text, size, piece in zip(texts, sizes, pieces, strict=False):
            if size < 0:
                with pytest.raises(UserError):
                    tokenizer.encode(text)
            else:
                assert piece.tolist() == tokenizer.encode(text)


def test_words_are_forgotten_where_there_are_too_many_and_have_the_same_tokens(monkeypatch):
    monkeypatch.setattr("anylatent.modalities.text.words.REMEMBERED", 8)
    tokenizer = BytePairs.train(["one two three four five six"] * 9, 280)
    text = "one two three four five six one"
    whole = tokenizer._encoder.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text) == whole == tokenizer.encode(text)
    assert tokenizer.encode("one") == whole[: len(tokenizer.encode("one"))]
    assert list(tokenizer._words) == ["one"] and tokenizer.decode(whole) == text
