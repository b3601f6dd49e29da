"""Pictures as clips of one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item, fetch
from anylatent.core.support.columns import Window
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.files import UserError
from anylatent.modalities.image.data import OpenMoji
from anylatent.modalities.video.data.base import window_of


class Stills(Data):
    """The pictures of another data set, `pictures`, each a clip of one frame, in the same parts.

    Columns: those of the pictures, and those of all videos: `video` (1, C, H, W), `first`,
    `frames`, which is 1, `motion`, which is 0, and `rate`. What is drawn from a model of them has
    `frames` frames, `rate` a second, as no clip says how many. Raises UserError for data that have
    no pictures.
    """

    def __init__(self, pictures: Data | None = None, *, frames: int = 8, rate: float = 8.0) -> None:
        if frames < 1 or not rate > 0:
            raise UserError(f"data.frames={frames}, data.rate={rate:g}: both must be above 0")
        self.pictures = OpenMoji() if pictures is None else pictures
        self.frames, self.rate = frames, float(rate)
        self.classes, self.shape = self.pictures.classes, self.pictures.shape

    @property
    def facts(self) -> dict[str, Any]:
        """`motion` is that of the clips: none."""
        own = {"rate": self.rate, "frames": self.frames, "motion": [0.0, 0.0, 0.0]}
        return {**super().facts, **own}

    @property
    def empty(self) -> Sequence[str]:
        return self.pictures.empty

    @property
    def fingerprint(self) -> str:
        return digest([type(self).__name__, self.pictures.fingerprint, self.rate])

    def train(self) -> Dataset[Item]:
        return _Clips(self.pictures.train(), self.rate)

    def held_out(self) -> Dataset[Item]:
        return _Clips(self.pictures.held_out(), self.rate)


class _Clips(Dataset[Item]):
    """Pictures as clips; `lengths` (N,) are 1, `sources` are those of the pictures."""

    def __init__(self, pictures: Dataset[Item], rate: float) -> None:
        self._pictures, self._rate = pictures, rate
        self.lengths = torch.ones(len(pictures), dtype=torch.long)  # type: ignore[arg-type]
        if isinstance(sources := getattr(pictures, "sources", None), Tensor):
            self.sources = sources

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int | Window) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int | Window]) -> list[Item]:
        places = [window_of(index, self.lengths).item for index in indices]
        return [self._clip(item) for item in fetch(self._pictures, places)]

    def _clip(self, item: Item) -> Item:
        picture = item.get("image") if isinstance(item, Mapping) else None
        if not isinstance(picture, Tensor) or picture.ndim != 3:
            raise UserError(
                "data.pictures must be a data set of pictures, whose items have `image` (C, H, W): "
                f"these have {', '.join(item)}"
            )
        own = {"video": picture[None], "first": picture, "frames": 1, "motion": torch.zeros(1)}
        others = {name: value for name, value in item.items() if name != "image"}
        return {**others, **own, "rate": self._rate}
