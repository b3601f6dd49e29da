"""Real pictures that others are judged by, their features, and the classifiers learned on them.

Distances are to the *held-out* pictures, which no training saw, so that copying the training
pictures earns nothing. Fréchet distance, precision and recall depend on how many pictures are
compared, so every row compares as many as are held out, and tells how many these were. A held-out
picture can't be compared with itself: rows made of held-out pictures are compared with as many
training pictures instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item, Outputs
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.progress import track
from anylatent.modalities.image.metrics.classes import labels
from anylatent.modalities.image.metrics.classifier import VERSION, Classifier, learn, restore
from anylatent.modalities.image.pictures import Pictures
from anylatent.modalities.shared.distances import nearest
from anylatent.modalities.shared.image_features import features
from anylatent.modalities.shared.restoration import blur

_LEAST = 4


@dataclass(frozen=True)
class Judged:
    """Pictures (N, C, H, W), their features (N, 1280), columns, and features `real` (M, 1280) of
    the pictures that they are compared with."""

    images: Tensor
    features: Tensor
    columns: Mapping[str, Any]
    real: Tensor


@lru_cache(maxsize=2)
def references_of(data: Data, limit: int) -> References:
    """Those of a data set, which all metrics share."""
    return References(data, limit)


class References:
    """At most `limit` training and held-out pictures of a data set, and what is learned of them.

    Features and classifiers are made once, at first use, and kept on disk.
    """

    def __init__(self, data: Data, limit: int) -> None:
        self.data, self.limit = data, limit
        self._last: tuple[Outputs, Tensor] | None = None

    def judged(self, outputs: Outputs, columns: Mapping[str, Any]) -> Judged:
        """Samples, to be compared with the held-out pictures. Raises ValueError for fewer than
        four, and for what is no picture."""
        images = pictures(outputs).detach().float()
        if len(images) < _LEAST:
            got = tuple(images.shape)
            raise ValueError(f"the figures need {_LEAST} pictures (B, C, H, W) or more, got {got}")
        if self._last is None or self._last[0] is not outputs:  # several metrics ask in turn
            self._last = outputs, features(images)
        return Judged(images, self._last[1], columns, self.features["held_out"])

    @cached_property
    def rows(self) -> dict[str, Judged]:
        """Held-out, training, and blurred held-out pictures (σ = 1/32 of the width)."""
        found, held_out = self.features, self.held_out
        some = chosen(len(found["train"]), len(found["held_out"]))
        train = found["train"][some]
        blurred = Judged(self._blurred, found["blurred"], held_out.columns, train)
        return {
            "held-out": Judged(held_out.images, found["held_out"], held_out.columns, train),
            "training": Judged(self.train.images[some], train, {}, found["held_out"]),
            "blurred": blurred,
        }

    @cached_property
    def train(self) -> Part:
        return Part(self.data.train(), self.limit)

    @cached_property
    def held_out(self) -> Part:
        return Part(self.data.held_out(), self.limit)

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """Features (N, 1280) of the training, held-out and blurred held-out pictures."""
        key = {"data": self.data.fingerprint, "limit": self.limit, "network": "lite0 224 px, 1"}
        return cached("features", key, self._measure)

    @cached_property
    def usual_distance(self) -> Tensor:
        """From each held-out picture to the nearest training picture."""
        return nearest(self.features["held_out"], self.features["train"]).distance

    @cached_property
    def classifiers(self) -> dict[str, Classifier]:
        """Of each class column."""
        return {key: self._classifier(key) for key in self.data.classes}

    @property
    def _blurred(self) -> Tensor:
        images = self.held_out.images
        return blur(images, images.shape[-1] / 32)

    def _measure(self) -> dict[str, Tensor]:
        sets = {"train": self.train.images, "held_out": self.held_out.images}
        sets["blurred"] = self._blurred
        for name, images in sets.items():
            if len(images) < _LEAST:
                raise ValueError(
                    f"the figures need {_LEAST} pictures or more in each part of the data, got "
                    f"{len(images)} ({name})"
                )
        parts = [(name, part) for name, images in sets.items() for part in torch.split(images, 64)]
        found: dict[str, list[Tensor]] = {name: [] for name in sets}
        for name, part in track(parts, "features of real pictures", len(parts)):
            found[name].append(features(part))
        return {name: torch.cat(pieces) for name, pieces in found.items()}

    def _classifier(self, key: str) -> Classifier:
        train, names = self.train, self.data.classes[key]
        known = labels(train.columns[key], names, len(train.images))
        made_of = {"data": self.data.fingerprint, "limit": self.limit, "key": key, "v": VERSION}
        state = cached(
            "classifier",
            made_of,
            lambda: learn(train.images, self.features["train"], known, len(names)),
        )
        return restore(state, train.images.shape[1])


class Part:
    """Pictures (N, C, H, W) and columns of a part of a data set, `limit` of them at most."""

    def __init__(self, dataset: Dataset[Item], limit: int) -> None:
        items = [dataset[int(row)] for row in chosen(len(dataset), limit)]  # type: ignore[arg-type]
        names = [name for name in items[0] if name != "image"]
        self.images = torch.stack([item["image"] for item in items])
        self.columns = {name: [item[name] for item in items] for name in names}


def chosen(size: int, count: int) -> Tensor:
    """`count` of `size` indices, in order, always the same ones; all of them if there are fewer."""
    if size <= count:
        return torch.arange(size)
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(size, generator=generator)[:count].sort().values


def pictures(outputs: Outputs) -> Tensor:
    """Outputs as a tensor (B, C, H, W); raises ValueError for what are no pictures."""
    if not isinstance(outputs, Pictures):
        raise ValueError(f"the figures are of Pictures, got {type(outputs).__name__}")
    return outputs.tensor
