"""Sheets: where cells and labels are, and how large they are."""

import math

import pytest

from anylatent.modalities.shared.sheets import FRAME, Sheet, zoom

ImageFont = pytest.importorskip("PIL.ImageFont", reason="pillow is not installed")


def sheet(count, columns=None, labels=()):
    return Sheet(count, (30, 20), columns, labels, ImageFont.load_default(size=10))


def test_cells_are_in_rows_about_as_many_as_columns():
    found = sheet(5)
    assert found.image.size == (3 * 30 + 1, 2 * 20 + 1)
    assert [found.corner(k) for k in range(5)] == [(0, 0), (30, 0), (60, 0), (0, 20), (30, 20)]
    assert sheet(5, columns=5).image.size == (151, 21)


def test_frames_meet_and_an_empty_place_has_none():
    pixels = sheet(5).image.convert("RGB").load()
    frame = tuple(int(FRAME[k : k + 2], 16) for k in (1, 3, 5))
    for x, y in ((0, 0), (30, 10), (60, 30), (89, 20), (15, 40)):
        assert pixels[x, y] == frame
    assert {pixels[15, 10], pixels[75, 30], pixels[89, 39]} == {(255, 255, 255)}


def test_labels_are_left_of_their_rows():
    plain, found = sheet(4, 2), sheet(4, 2, ["", "W"])
    width = int(ImageFont.load_default(size=10).getlength("W"))
    assert found.margin == 20 + width and found.corner(3) == (found.margin + 30, 20)
    assert found.image.width == plain.image.width + found.margin
    words = found.image.crop((0, 0, found.margin, found.image.height)).convert("L")
    dark = words.point(lambda value: 255 * (value < 128)).getbbox()
    assert 10 <= dark[0] and dark[2] <= 10 + width + 1 and 20 < dark[1] and dark[3] < 40


def test_cells_grow_where_they_are_few_and_shrink_on_huge_sheets():
    assert zoom(1, 100, 100, usual=1e6, largest=1.5) == 1.5
    assert zoom(40, 100, 100, usual=1e6, largest=2) == pytest.approx(math.sqrt(2.5))
    assert zoom(1000, 100, 100, usual=1e6, largest=2) == 1
    count = 8000
    assert count * (100 * zoom(count, 100, 100, 1e6, 2)) ** 2 == pytest.approx(20e6)
