"""Pictures of texts: what is written is all there, differences are in colour."""

import numpy as np
import pytest
import torch

from anylatent.modalities.text import picture
from anylatent.modalities.text.picture import comparison, differing, drawings, page, wrapped
from anylatent.modalities.text.texts import Text, Texts
from anylatent.modalities.text.tokenizer import BytePairs

BYTES = BytePairs([])
RED, BLUE = (0xB3, 0x37, 0x2B), (0x1D, 0x6F, 0xA5)


def said(text):
    return Text.of(BYTES.encode(text), BYTES)


def count(image, colour):
    """Pixels of exactly a colour: strokes of letters have some in their middle."""
    return int((np.asarray(image) == np.array(colour)).all(-1).sum())


def rows_of(monkeypatch, draw):
    """The lines that a picture was set from, and their colours."""
    seen = []
    monkeypatch.setattr(picture, "_set", lambda rows: seen.extend(rows))
    draw()
    return ["".join(c for c, _ in row) for row in seen], [[c for _, c in row] for row in seen]


def test_texts_are_wrapped_and_nothing_is_lost(monkeypatch):
    texts = ["word " * 60 + "end", "x" * 250, "", "a\nb\tc\x00"]
    lines, _ = rows_of(monkeypatch, lambda: page(texts))
    assert max(map(len, lines)) <= 100
    body = [line[2:] for line in lines]
    assert "".join(body[:4]) == texts[0] and all(line[-1] in " d" for line in body[:4])
    assert "".join(body[4:7]) == texts[1] and body[7] == ""
    assert body[8] == "a⏎b→c\N{REPLACEMENT CHARACTER}"
    assert [line[0] for line in lines if line[0] != " "] == list("1234")


def test_lines_break_after_spaces_where_there_are_some():
    cells = [(character, "") for character in "aa bbb ccccccc"]
    found = ["".join(c for c, _ in line) for line in wrapped(cells, 4)]
    assert found == ["aa ", "bbb ", "cccc", "ccc"]


def test_labels_head_their_texts(monkeypatch):
    lines, _ = rows_of(monkeypatch, lambda: page(list("abcd"), 2, ["old", "new"]))
    assert lines == ["old", "1 a", "2 b", "", "new", "3 c", "4 d"]


def test_a_page_has_ink_and_grows_with_its_texts():
    one, many = page(["some words"]), page(["some words"] * 30)
    assert many.height > 15 * one.height / 2 and many.width == one.width
    assert (np.asarray(one.convert("L")) < 128).any()


def test_differing_tokens_are_found_despite_shifts():
    a, b = differing(said("abcdef"), said("abXcdef"))
    assert a == [False] * 6 and b == [False, False, True, False, False, False, False]
    a, b = differing(said("abc"), said("axc"))
    assert a == b == [False, True, False]
    assert differing(said(""), said("ab")) == ([], [True, True])


def test_a_comparison_colours_what_differs(monkeypatch):
    lines, colours = rows_of(
        monkeypatch, lambda: comparison(Texts([said("abc")]), Texts([said("axc")]), BYTES)
    )
    assert lines == ["data     abc", "restored axc"]
    assert len(set(colours[0][9:])) == len(set(colours[1][9:])) == 2
    assert colours[0][9] == colours[0][11] == colours[1][9] != colours[0][10] != colours[1][10]
    monkeypatch.undo()
    same = comparison(Texts([said("abc")]), Texts([said("abc")]), BYTES)
    other = comparison(Texts([said("abc")]), Texts([said("MMM")]), BYTES)
    assert count(same, RED) == 0 and count(other, RED) > 10 and count(other, BLUE) > 5


def test_a_comparison_without_a_tokenizer_has_numbers(monkeypatch):
    first, second = (Text.of(tokens, None) for tokens in ([5, 17], [5, 3]))
    lines, _ = rows_of(monkeypatch, lambda: comparison(Texts([first]), Texts([second]), None))
    assert lines == ["data     5 17", "restored 5 3"]
    with pytest.raises(ValueError, match="1 originals, but 2 outputs"):
        comparison(Texts([first]), Texts([first, second]), None)


def test_invalid_smiles_are_red_and_valid_ones_are_drawn():
    pytest.importorskip("rdkit", reason="rdkit is not installed: anylatent[text]")
    valid, invalid = drawings(["CCCC"]), drawings(["C1CC"])
    assert valid.size == invalid.size
    assert count(valid, RED) == 0 and count(invalid, RED) > 100
    middle = invalid.crop((30, 60, invalid.width - 30, invalid.height - 60))
    assert count(middle, RED) > 10  # the string itself
    mixed = drawings(["CCCC", "C1CC", "c1ccccc1"], 3)
    third = mixed.width // 3
    cells = [mixed.crop((k * third, 0, (k + 1) * third, mixed.height)) for k in range(3)]
    assert [count(cell, RED) > 100 for cell in cells] == [False, True, False]
    assert all((np.asarray(cell.convert("L")) < 100).sum() > 100 for cell in (cells[0], cells[2]))


def test_a_grid_has_its_columns_and_labels():
    pytest.importorskip("rdkit", reason="rdkit is not installed: anylatent[text]")
    strings = ["CC", "x" * 300, "", "CO", "N", "C#C"]
    two, three = drawings(strings, 2), drawings(strings, 3)
    assert (two.width - 1) * 3 == (three.width - 1) * 2
    assert (two.height - 1) * 2 == (three.height - 1) * 3
    assert drawings(strings, 2, ["one", "two", "three"]).width > two.width
    assert max(drawings([""] * 1000).size) < 6000


def test_without_rdkit_smiles_are_a_page(monkeypatch):
    from anylatent.modalities.text import chemistry

    def missing(smiles):
        raise ImportError("no rdkit")

    monkeypatch.setattr(chemistry, "parse", missing)
    assert drawings(["CC"]).size == page(["CC"]).size


def test_nothing_can_not_be_shown():
    for draw in (page, drawings):
        with pytest.raises(ValueError, match="at least one text"):
            draw([])
    assert torch.equal(said("a").tokens, torch.tensor([97]))
