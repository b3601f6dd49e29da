"""Contact sheets of clips: time along x."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

GAP, MOST = 2, 16
"""Pixels between frames; frames of a clip on a sheet, evenly chosen where it has more."""

_GIVEN = (214, 96, 20)  # the frame around what was given


def sheet(
    pixels: Tensor, lengths: Sequence[int], given: Tensor, columns: int, labels: Sequence[str]
) -> Image.Image:
    """All clips, uint8 (B, T, H, W, C), `columns` of them side by side, each a row of its frames;
    those that were `given` (B, T) have a coloured frame. A label stands left of each row."""
    count, _, height, width, _ = pixels.shape
    shown = [_chosen(length) for length in lengths]
    wide = max((len(places) for places in shown), default=1)
    step = wide * (width + GAP) + 2 * GAP
    rows = math.ceil(count / columns)
    size = (rows * (height + GAP) + GAP, columns * step + GAP, 3)
    canvas = torch.full(size, 255, dtype=torch.uint8)
    for index, places in enumerate(shown):
        row, column = divmod(index, columns)
        top = GAP + row * (height + GAP)
        for k, place in enumerate(places):
            left = GAP + column * step + k * (width + GAP)
            _paste(canvas, pixels[index, place], top, left, bool(given[index, place]))
    return _labelled(canvas, labels, height + GAP)


def _chosen(length: int) -> list[int]:
    """The frames of a clip that are shown."""
    if length <= MOST:
        return list(range(length))
    return [round(k * (length - 1) / (MOST - 1)) for k in range(MOST)]


def _paste(canvas: Tensor, frame: Tensor, top: int, left: int, given: bool) -> None:
    height, width = frame.shape[:2]
    if given:
        edge = canvas[top - GAP : top + height + GAP, left - GAP : left + width + GAP]
        edge.copy_(torch.tensor(_GIVEN, dtype=torch.uint8).expand_as(edge))
    canvas[top : top + height, left : left + width] = frame


def _labelled(canvas: Tensor, labels: Sequence[str], step: int) -> Image.Image:
    from PIL import Image

    from anylatent.modalities.shared.sheets import labelled

    picture = Image.fromarray(canvas.numpy())
    return labelled(picture, labels, step, GAP) if labels else picture
