"""Pictures of more than 8 bits: which of their numbers is black, and which is white.

Cameras, microscopes and scanners write 10, 12 or 14 bits into files of 16, and computed pictures
are floats of any range. No single picture tells its range, so it is found over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anylatent.core.support.files import UserError
from anylatent.core.support.progress import track

if TYPE_CHECKING:
    from PIL import Image

Range = tuple[float, float]

SHALLOW = (".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".avif", ".heic")
"""Endings of files that never have more than 8 bits once Pillow has read them."""

_DEPTHS = (8, 10, 12, 14, 16)  # bits that instruments have
_INTEGER, _FLOAT = 1, 2


def is_deep(mode: str) -> bool:
    """Whether pictures of one of Pillow's modes have integers of 16 or 32 bits, or floats."""
    return mode.startswith("I") or mode == "F"


@dataclass(frozen=True)
class Levels:
    """Black and white of the pictures with integers of more than 8 bits, and of those of floats."""

    integers: Range = (0.0, 65535.0)
    floats: Range = (0.0, 1.0)

    def grey(self, image: Image.Image) -> Image.Image:
        """A deep picture as floats from 0 (black) to 255 (white), clipped. Raises ValueError for
        numbers that are not finite."""
        import numpy as np
        from PIL import Image

        black, white = self.floats if image.mode == "F" else self.integers
        values = np.asarray(image)
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise ValueError(f"{bad} of its {values.size} values are not finite")
        scale = 255 / (white - black)
        plain = 1e-30 < abs(scale) < 1e30 and abs(black * scale) < 1e5  # float32 will do
        exact = values.astype(np.float32) if plain else values.astype(np.float64)
        scaled = (exact - black) * scale
        return Image.fromarray(scaled.clip(0, 255).astype(np.float32))


def check_levels(levels: Sequence[float]) -> Range | None:
    """Black and white as a user gave them, None where they are not. Raises UserError unless they
    are two finite numbers."""
    if not levels:
        return None
    found = tuple(float(level) for level in levels)
    if len(found) != 2 or found[0] == found[1] or not torch.tensor(found).isfinite().all():
        raise UserError(
            f"levels={list(levels)}: two different numbers are wanted, that of black and that of "
            "white, such as [0,4095] for pictures of 12 bits"
        )
    return found[0], found[1]


def depths(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Of each picture `kind` (0 for one of 8 bits or none), and `least` and `most` of its numbers.

    Only those that are deep are decoded.
    """
    with ThreadPoolExecutor() as pool:
        found = list(track(pool.map(_depth, paths), "looking for black and white", len(paths)))
    kinds, least, most = zip(*found, strict=True)
    return {
        "kind": torch.tensor(kinds, dtype=torch.uint8),
        "least": torch.tensor(least, dtype=torch.float64),
        "most": torch.tensor(most, dtype=torch.float64),
    }


def levels_of(found: dict[str, Tensor], given: Range | None) -> tuple[Levels, list[str]]:
    """The levels of pictures whose `depths` were found, and what to say of them."""
    levels, said = dict[int, Range](), list[str]()
    for kind, name in ((_INTEGER, "integers of more than 8 bits"), (_FLOAT, "floats")):
        mine = found["kind"] == kind
        if not bool(mine.any()):
            continue
        least, most = float(found["least"][mine].min()), float(found["most"][mine].max())
        black, white = given or (_whole(least, most) if kind == _INTEGER else (least, most))
        white = white if white != black else black + 1
        levels[kind] = black, white
        bits = f", of which {_bits(most)} bits are used" if kind == _INTEGER and least >= 0 else ""
        said.append(
            f"{int(mine.sum())} pictures have {name} from {least:g} to {most:g}{bits}: "
            f"{black:g} is black, {white:g} is white (data.levels=[BLACK,WHITE] for others)"
        )
    usual = Levels()
    integers, floats = levels.get(_INTEGER, usual.integers), levels.get(_FLOAT, usual.floats)
    return Levels(integers, floats), said


def _whole(least: float, most: float) -> Range:
    """What integers may be: all of the bits that are used, or the range where some are negative."""
    return (least, most) if least < 0 else (0.0, 2.0 ** _bits(most) - 1)


def _bits(most: float) -> int:
    used = int(most).bit_length()
    return next((bits for bits in _DEPTHS if bits >= used), used)


def _depth(path: Path) -> tuple[int, float, float]:
    """Kind, least and greatest number of a picture; what can't be read tells nothing."""
    import numpy as np
    from PIL import Image

    try:
        if path.suffix.lower() in SHALLOW:
            return 0, 0.0, 0.0
        with Image.open(path) as image:
            if not is_deep(image.mode):
                return 0, 0.0, 0.0
            values = np.asarray(image)
            kind = _FLOAT if image.mode == "F" else _INTEGER
    except Exception:  # decoders raise whatever they like; reading the picture says what
        return 0, 0.0, 0.0
    if not values.size or not np.isfinite(values).all():
        return 0, 0.0, 0.0
    return kind, float(values.min()), float(values.max())
