"""Pictures of texts: a page of them, two beside one another, and drawings of SMILES."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from anylatent.core.support.packages import MissingPackage, package_file
from anylatent.modalities.shared.chemistry import drawing
from anylatent.modalities.shared.sheets import BAD, FAINT, TEXT, Sheet, zoom
from anylatent.modalities.text.tokenizer import Tokenizer, spelled

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    from anylatent.modalities.text.texts import Text, Texts

Cell: TypeAlias = tuple[str, str]
"""One character and its colour."""

_GOOD = "#1d6fa5"
_COLUMNS = 100  # characters of a line
_SIZE, _LEADING, _MARGIN = 15, 20, 14  # pixels
_WIDTH, _HEIGHT, _CAPTION = 220, 150, 24  # pixels of a drawing's cell
_USUAL_PIXELS = 1.2e6  # of a sheet
_BREAKS = {"\n": "⏎", "\r": "⏎", "\t": "→"}


# ---- pages ------------------------------------------------------------------------------------
def page(
    texts: Sequence[str], columns: int | None = None, labels: Sequence[str] = ()
) -> Image.Image:
    """Numbered texts in a monospaced font, wrapped; label k heads `columns` texts from k·`columns`.

    Raises ValueError without a text.
    """
    _some(texts)
    digits = len(str(len(texts)))
    rows: list[list[Cell]] = []
    for number, text in enumerate(texts):
        group, place = divmod(number, columns or len(texts))
        if place == 0 and group < len(labels):
            rows += [*([[]] if rows else []), _cells(labels[group], _GOOD)]
        rows += _paragraph(f"{number + 1:>{digits}} ", _cells(text, TEXT))
    return _set(rows)


def comparison(originals: Texts, outputs: Texts, tokenizer: Tokenizer | None) -> Image.Image:
    """Each original above its reconstruction; tokens that do not match are in colour.

    Tokens match as in the shortest list of changes between the two, so that one too many does not
    colour all that follow. Raises ValueError for other numbers of texts, or none.
    """
    if len(originals) != len(outputs):
        raise ValueError(f"{len(originals)} originals, but {len(outputs)} outputs")
    _some(originals)
    rows: list[list[Cell]] = []
    for original, output in zip(originals, outputs, strict=True):
        above, below = differing(original, output)
        rows += [[]] if rows else []
        rows += _paragraph("data     ", _coloured(original, above, _GOOD, tokenizer))
        rows += _paragraph("restored ", _coloured(output, below, BAD, tokenizer))
    return _set(rows)


def differing(first: Text, second: Text) -> tuple[list[bool], list[bool]]:
    """Which tokens of each have no partner in the other."""
    a, b = first.tokens.tolist(), second.tokens.tolist()
    lonely = [True] * len(a), [True] * len(b)
    for i, j, size in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
        lonely[0][i : i + size] = [False] * size
        lonely[1][j : j + size] = [False] * size
    return lonely


def _coloured(
    text: Text, lonely: Sequence[bool], colour: str, tokenizer: Tokenizer | None
) -> list[Cell]:
    found: list[Cell] = []
    pairs = zip(text.tokens.tolist(), lonely, strict=True)
    for alone, run in groupby(pairs, key=lambda pair: pair[1]):
        said = spelled([token for token, _ in run], tokenizer)
        if tokenizer is None and found:
            said = f" {said}"
        found += _cells(said, colour if alone else TEXT)
    return found


def _cells(text: str, colour: str) -> list[Cell]:
    shown = (_BREAKS.get(c, c if c.isprintable() else "\N{REPLACEMENT CHARACTER}") for c in text)
    return [(character, colour) for character in shown]


def _paragraph(head: str, cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Lines of at most 100 characters, the first after a head, the others as far to the right."""
    start = _cells(head, FAINT)
    for line in wrapped(cells, _COLUMNS - len(head)):
        yield [*start, *line]
        start = _cells(" " * len(head), FAINT)


def wrapped(cells: Sequence[Cell], width: int) -> Iterator[Sequence[Cell]]:
    """Lines of at most `width`, after a space where there is one; an empty text is one line."""
    while len(cells) > width:
        spaces = [place for place in range(width) if cells[place][0] == " "]
        end = spaces[-1] + 1 if spaces else width
        yield cells[:end]
        cells = cells[end:]
    yield cells


def _set(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Characters on a grid."""
    from PIL import Image, ImageDraw

    font = monospaced(_SIZE)
    step = font.getlength("m")
    width = round(2 * _MARGIN + step * max(_COLUMNS, *map(len, rows)))
    picture = Image.new("RGB", (width, 2 * _MARGIN + _LEADING * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    for number, row in enumerate(rows):
        baseline = _MARGIN + _LEADING * number + _SIZE
        for place, (character, colour) in enumerate(row):
            if character != " ":
                at = (_MARGIN + step * place, baseline)
                draw.text(at, character, fill=colour, font=font, anchor="ls")
    return picture


@lru_cache(maxsize=16)
def monospaced(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans Mono, which comes with matplotlib; Pillow's own font without it."""
    from PIL import ImageFont

    purpose = "a monospaced font"
    try:
        place = ("mpl-data", "fonts", "ttf", "DejaVuSansMono.ttf")
        return ImageFont.truetype(str(package_file("matplotlib", *place, purpose=purpose)), size)
    except (MissingPackage, OSError):
        font = ImageFont.load_default(size=size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font


# ---- drawings ---------------------------------------------------------------------------------
def drawings(
    strings: Sequence[str], columns: int | None = None, labels: Sequence[str] = ()
) -> Image.Image:
    """A grid of molecules by RDKit, `columns` wide (about square if not given), each above its
    SMILES; red and framed where RDKit finds no molecule. `labels` are left of the rows.

    Without RDKit, a page. Raises ValueError without a string.
    """
    from anylatent.modalities.text.chemistry import parse

    _some(strings)
    try:
        molecules = [parse(string) for string in strings]
    except ImportError:
        return page(strings, columns, labels)
    factor = max(0.25, zoom(len(strings), _WIDTH, _HEIGHT + _CAPTION, _USUAL_PIXELS, 1.5))
    width, height = round(_WIDTH * factor), round((_HEIGHT + _CAPTION) * factor)
    font = monospaced(max(9, round(_SIZE * factor)))
    sheet = Sheet(len(strings), (width, height), columns, labels, font)
    for index, (string, molecule) in enumerate(zip(strings, molecules, strict=True)):
        left, top = sheet.corner(index)
        if molecule is not None:
            drawn = _depiction(molecule, width - 2, round(_HEIGHT * factor))
            sheet.image.paste(drawn, (left + 1, top + 1))
        _caption(sheet.draw, string, molecule is not None, (left, top, width, height), factor)
    return sheet.image


def _depiction(molecule: Any, width: int, height: int) -> Image.Image:
    from rdkit.Chem import rdDepictor

    rdDepictor.Compute2DCoords(molecule, useRingTemplates=True)
    rdDepictor.StraightenDepiction(molecule)
    line = max(1, round(width / 80))
    options = {"fixedBondLength": 0.25 * width, "padding": 0.08, "bondLineWidth": line}
    return drawing(molecule, width, height, options)


def _caption(
    draw: ImageDraw.ImageDraw,
    string: str,
    valid: bool,
    box: tuple[int, int, int, int],
    factor: float,
) -> None:
    """The string, as large as fits and cut where it is too long; in red, and in the middle of a
    red frame, where it is invalid."""
    left, top, width, height = box
    text = "".join(character for character, _ in _cells(string, TEXT)) or "(empty)"
    size = max(9, round(_SIZE * factor))
    while size > 9 and monospaced(size).getlength(text) > width - 8:
        size -= 1
    font = monospaced(size)
    room = max(2, int((width - 8) / font.getlength("m")))
    text = text if len(text) <= room else f"{text[: room - 1]}…"
    middle = height - _CAPTION * factor / 2 if valid else height / 2
    if not valid:
        inner = (left + 5, top + 5, left + width - 5, top + height - 5)
        draw.rounded_rectangle(inner, 6, outline=BAD)
    colour = TEXT if valid else BAD
    draw.text((left + width / 2, top + middle), text, fill=colour, font=font, anchor="mm")


def _some(texts: Sequence[object]) -> None:
    if not len(texts):
        raise ValueError("a picture needs at least one text, got none")
