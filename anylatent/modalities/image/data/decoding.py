"""Pictures out of files: whatever Pillow opens, and why it can't."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from anylatent.core.support.digests import number_of
from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.image.data.depth import Levels, is_deep
from anylatent.modalities.shared.report import reason_of

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""The usual ones; `opens` knows the others."""

_SIGNED = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PSD", "HEIF", "JXL")
"""Kinds that are known by their first bytes, whatever a file is called."""


def opens(path: Path) -> bool:
    """Whether Pillow knows the ending of a file, or its first bytes are those of a picture."""
    endings, kinds = _known()
    if path.suffix.lower() in endings:
        return True
    from PIL import Image

    try:
        with Image.open(path, formats=kinds):
            return True
    except Exception:  # decoders raise whatever they like at what is none of theirs
        return False


@cache
def _known() -> tuple[frozenset[str], list[str]]:
    """The endings of all pictures that Pillow reads, and the kinds with a signature."""
    try:
        from PIL import Image
    except ImportError:
        return frozenset(), []
    endings = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return frozenset(endings), [kind for kind in _SIGNED if kind in Image.OPEN]


class Read(NamedTuple):
    """A picture as uint8, (3, size, size), and a number of its own, whatever its size is here."""

    pixels: Tensor
    source: int


def read_picture(path: Path, size: int, levels: Levels) -> Read | str:
    """A picture, or why it cannot be read. `levels` are black and white in those of more than 8
    bits."""
    try:
        import numpy as np
        from PIL import Image
    except ImportError as error:
        raise MissingPackage("pillow", "the data set 'folder'") from error
    try:
        with Image.open(path) as image:
            whole = _upright(image)
            pixels = np.array(_square(whole, size, levels))
            source = number_of(f"{whole.mode} {whole.size}".encode(), whole.tobytes())
    except Exception as error:  # decoders raise whatever they like at broken files
        return _why(path, error)
    return Read(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), source)


def _why(path: Path, error: Exception) -> str:
    if type(error).__name__ != "UnidentifiedImageError":
        return reason_of(error)
    empty = path.exists() and path.stat().st_size == 0
    return "the file is empty" if empty else "no picture that Pillow knows"


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says, and on white, unless it has more than 8 bits."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if is_deep(upright.mode):
        return upright
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return upright.convert("RGB")


def _square(upright: Image.Image, size: int, levels: Levels) -> Image.Image:
    """The central square, resized with antialiasing."""
    from PIL import Image, ImageOps

    if is_deep(upright.mode):
        grey = ImageOps.fit(levels.grey(upright), (size, size), Image.Resampling.LANCZOS)
        return grey.point(lambda value: value + 0.5).convert("RGB")  # which rounds down
    return ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS)
