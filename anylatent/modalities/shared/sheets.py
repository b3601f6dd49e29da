"""Sheets of drawings: framed cells in rows, with labels left of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageFont

TEXT, FAINT, FRAME, BAD = "#202328", "#8a9099", "#d9dde2", "#b3372b"
"""Colours of words, of less important ones, of frames, and of what is wrong."""

_MOST_PIXELS = 20e6
_MARGIN = 10  # pixels on either side of the labels


def zoom(count: int, width: int, height: int, usual: float, largest: float) -> float:
    """How much larger than usual the cells of a sheet should be, each way.

    A sheet of few cells grows to `usual` pixels, but cells to `largest` times their size; a huge
    one shrinks to 20 million pixels.
    """
    area = max(count, 1) * width * height
    grown = min(largest, max(1.0, math.sqrt(usual / area)))
    return min(grown, math.sqrt(_MOST_PIXELS / area))


class Sheet:
    """A white picture with `count` framed cells of `size` (width, height), to be drawn into.

    There are `columns` cells to a row, about as many as rows if not given; label k is left of row
    k. `image` is the picture, `draw` draws on it.
    """

    def __init__(
        self,
        count: int,
        size: tuple[int, int],
        columns: int | None,
        labels: Sequence[str],
        font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    ) -> None:
        from PIL import Image, ImageDraw

        self.size, self.columns = size, columns or math.ceil(math.sqrt(count))
        lengths = [int(font.getlength(label)) for label in labels]
        self.margin = 2 * _MARGIN + max(lengths) if lengths else 0
        rows, (width, height) = math.ceil(count / self.columns), size
        whole = (self.margin + self.columns * width + 1, rows * height + 1)
        self.image = Image.new("RGB", whole, "white")
        self.draw = ImageDraw.Draw(self.image)
        for row, label in enumerate(labels):
            at = (_MARGIN, (row + 0.5) * height)
            self.draw.text(at, label, fill=TEXT, font=font, anchor="lm")
        for index in range(count):
            left, top = self.corner(index)
            self.draw.rectangle((left, top, left + width, top + height), outline=FRAME)

    def corner(self, index: int) -> tuple[int, int]:
        """The left and the upper edge of a cell."""
        row, column = divmod(index, self.columns)
        return self.margin + column * self.size[0], row * self.size[1]


def labelled(sheet: Image.Image, labels: Sequence[str], step: int, gap: int) -> Image.Image:
    """A sheet with a label left of each row of `step` pixels, below a gap at the top."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=min(14, max(8, step // 2)))
    margin = 8 + max(int(font.getlength(label)) for label in labels)
    wide = Image.new("RGB", (sheet.width + margin, sheet.height), "white")
    wide.paste(sheet, (margin, 0))
    draw = ImageDraw.Draw(wide)
    for row, label in enumerate(labels):
        draw.text((4, gap + (row + 0.5) * step), label, fill="black", font=font, anchor="lm")
    return wide
