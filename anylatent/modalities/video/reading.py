"""What a user gives of frames: a file, or a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anylatent.core.support.files import UserError, place_of
from anylatent.modalities.image.data.decoding import read_picture
from anylatent.modalities.image.data.depth import Levels


def clip_of(clip: Any, shape: Sequence[int], rate: float | None) -> Tensor:
    """A clip (T, C, H, W) in [-1, 1] from the path of a file, in frames of this shape at this rate,
    or from a tensor of that form. Raises UserError for another."""
    if isinstance(clip, Tensor):
        return _fitting(clip, shape, 4, "a clip (T, C, H, W)")
    return _read_clip(str(clip), tuple(shape), rate)


def picture_of(picture: Any, shape: Sequence[int]) -> Tensor:
    """A picture (C, H, W) in [-1, 1] from the path of a file, or from a tensor of that form, or
    the first of a clip (T, C, H, W)."""
    if isinstance(picture, Tensor):
        first = picture[0] if picture.ndim == 4 else picture
        return _fitting(first, shape, 3, "a picture (C, H, W)")
    return _read_picture(str(picture), tuple(shape))


@lru_cache(maxsize=16)
def _read_clip(path: str, shape: tuple[int, ...], rate: float | None) -> Tensor:
    from anylatent.modalities.video.data.decoding import read_clip

    return read_clip(path, shape[1], shape[0], rate)


@lru_cache(maxsize=16)
def _read_picture(path: str, shape: tuple[int, ...]) -> Tensor:
    place: Path = place_of(path)
    if not place.is_file():
        raise UserError(f"cond.first={path}: there is no such file")
    found = read_picture(place, shape[1], Levels())
    if isinstance(found, str):
        raise UserError(f"cond.first={path} is no picture: {found}")
    pixels = found.pixels.float() / 127.5 - 1
    return grey(pixels) if shape[0] == 1 else pixels


def grey(pixels: Tensor) -> Tensor:
    """Colours (..., 3, H, W) as their brightness (..., 1, H, W), by the weights of Rec. 601."""
    weights = torch.tensor([0.299, 0.587, 0.114]).to(pixels)[:, None, None]
    return (pixels * weights).sum(-3, keepdim=True)


def _fitting(x: Tensor, shape: Sequence[int], axes: int, what: str) -> Tensor:
    if x.ndim != axes or tuple(x.shape[-3:]) != tuple(shape):
        raise UserError(
            f"{what} with frames of shape {tuple(shape)} is wanted, got {tuple(x.shape)}: scale it "
            "to the size of the model"
        )
    return x
