"""The table of figures by which samples and reconstructions of pictures are judged.

Distances are between EfficientNet-Lite0 features (`features.py`) and to the *held-out* pictures,
which no training saw, so that copying the training pictures earns nothing. Fréchet distance,
precision and recall depend on how many pictures are compared, so every row compares as many as
are held out, and tells how many these were. A held-out picture can't be compared with itself:
rows made of held-out pictures are compared with as many training pictures instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item, Metrics, Outputs
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.progress import track
from anylatent.modalities.image.metrics.classifier import VERSION, Classifier, learn, restore
from anylatent.modalities.image.pictures import Pictures
from anylatent.modalities.shared.distances import (
    Nearest,
    frechet,
    kernel_distance,
    nearer,
    nearest,
    precision_recall,
)
from anylatent.modalities.shared.image_features import features
from anylatent.modalities.shared.perceptual import Perceptual
from anylatent.modalities.shared.restoration import blur, psnr, ssim

_LEAST = 4


class ImageMetrics(Metrics):
    """Figures of pictures against a data set; at most `limit` pictures of either part are used.

    Rows about samples hold

    - `pictures`: how many samples the distances are about (the number of held-out pictures, or
      fewer if there were fewer, which makes the Fréchet distance larger);
    - `frechet_efficientnet`, `kernel_efficientnet` (unbiased), `precision`, `recall`: to real
      pictures. They say most where the samples' classes are as frequent as among held-out ones;
    - `nearest_training`: the median distance to the nearest training picture;
      `nearer_than_held_out`: the probability that a sample is nearer to one than a held-out
      picture is (.5 for the true law, 1 for copies); `near_copies`: the fraction nearer than the
      nearest twentieth of the held-out ones (.05 for the true law);
    - `accuracy`, `accuracy_macro` (the mean over classes), `accuracy_<class>`: how often a
      classifier learned from the training pictures names the class that was asked for, given
      that the columns tell it. Beside them, `baselines` has how often it is right about held-out
      pictures. With several class columns the names begin with the column's.

    Features and classifiers are made once, at first use, and kept on disk.
    """

    def __init__(self, data: Data, limit: int = 5000) -> None:
        self.data, self.limit = data, limit

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        images = self._check(outputs)
        return self._row(images, features(images), columns, self._features["held_out"])

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> dict[str, float]:
        """`psnr` (dB, the mean of the pictures' own), `ssim`, `perceptual` (AlexNet)."""
        before, after = _tensor(originals), _tensor(outputs)
        with torch.no_grad():
            distance = Perceptual("alex")(before.float(), after.float())
        return {
            "psnr": float(psnr(before, after).mean()),
            "ssim": float(ssim(before, after).mean()),
            "perceptual": float(distance.mean()),
        }

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """Rows for held-out, training, and blurred held-out pictures (σ = 1/32 of the width)."""
        found, held_out = self._features, self._held_out
        count = len(found["held_out"])
        some = _some(len(found["train"]), count)
        training = found["train"][some]
        images = self._train.images[some]
        return {
            "held-out": self._row(held_out.images, found["held_out"], held_out.columns, training),
            "training": self._row(images, training, {}, found["held_out"]),
            "blurred": self._row(self._blurred, found["blurred"], held_out.columns, training),
        }

    def nearest(self, outputs: Outputs) -> Nearest:
        """The distance of each output to the nearest training picture, and which one that is."""
        return nearest(features(self._check(outputs)), self._features["train"])

    def _row(
        self, images: Tensor, found: Tensor, columns: Mapping[str, Any], real: Tensor
    ) -> dict[str, float]:
        chosen = found[_some(len(found), len(real))]
        precision, recall = precision_recall(chosen, real)
        row = {
            "pictures": float(len(chosen)),
            "frechet_efficientnet": frechet(chosen, real),
            "kernel_efficientnet": kernel_distance(chosen, real),
            "precision": precision,
            "recall": recall,
        }
        return {**row, **self._memorisation(found), **self._accuracies(images, found, columns)}

    def _memorisation(self, found: Tensor) -> dict[str, float]:
        distance = nearest(found, self._features["train"]).distance
        usual = self._usual_distance
        return {
            "nearest_training": float(distance.median()),
            "nearer_than_held_out": nearer(distance, usual),
            "near_copies": float((distance < usual.quantile(0.05)).double().mean()),
        }

    def _accuracies(
        self, images: Tensor, found: Tensor, columns: Mapping[str, Any]
    ) -> dict[str, float]:
        row: dict[str, float] = {}
        for key, names in self.data.classes.items():
            asked = _labels(columns.get(key), names, len(images))
            known = asked >= 0
            if not bool(known.any()):
                continue
            named = self._classifiers[key](images[known].cpu(), found[known]).argmax(1)
            prefix = "" if len(self.data.classes) == 1 else f"{key}_"
            row |= _accuracy(named == asked[known], asked[known], names, f"{prefix}accuracy")
        return row

    def _check(self, outputs: Outputs) -> Tensor:
        images = _tensor(outputs)
        if len(images) < _LEAST:
            got = tuple(images.shape)
            raise ValueError(f"the figures need {_LEAST} pictures (B, C, H, W) or more, got {got}")
        return images.detach().float()

    @cached_property
    def _train(self) -> _Part:
        return _Part(self.data.train(), self.limit)

    @cached_property
    def _held_out(self) -> _Part:
        return _Part(self.data.held_out(), self.limit)

    @property
    def _blurred(self) -> Tensor:
        images = self._held_out.images
        return blur(images, images.shape[-1] / 32)

    @cached_property
    def _features(self) -> dict[str, Tensor]:
        """Features (N, 1280) of the training, held-out and blurred held-out pictures."""
        key = {"data": self.data.fingerprint, "limit": self.limit, "network": "lite0 224 px, 1"}
        return cached("features", key, self._measure)

    def _measure(self) -> dict[str, Tensor]:
        sets = {"train": self._train.images, "held_out": self._held_out.images}
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

    @cached_property
    def _usual_distance(self) -> Tensor:
        """From each held-out picture to the nearest training picture."""
        return nearest(self._features["held_out"], self._features["train"]).distance

    @cached_property
    def _classifiers(self) -> dict[str, Classifier]:
        return {key: self._classifier(key) for key in self.data.classes}

    def _classifier(self, key: str) -> Classifier:
        train, names = self._train, self.data.classes[key]
        labels = _labels(train.columns[key], names, len(train.images))
        made_of = {"data": self.data.fingerprint, "limit": self.limit, "key": key, "v": VERSION}
        state = cached(
            "classifier",
            made_of,
            lambda: learn(train.images, self._features["train"], labels, len(names)),
        )
        return restore(state, train.images.shape[1])


def _tensor(outputs: Outputs) -> Tensor:
    if not isinstance(outputs, Pictures):
        raise ValueError(f"the figures are of Pictures, got {type(outputs).__name__}")
    return outputs.tensor


class _Part:
    """Pictures (N, C, H, W) and columns of a part of a data set, `limit` of them at most."""

    def __init__(self, dataset: Dataset[Item], limit: int) -> None:
        items = [dataset[int(row)] for row in _some(len(dataset), limit)]  # type: ignore[arg-type]
        names = [name for name in items[0] if name != "image"]
        self.images = torch.stack([item["image"] for item in items])
        self.columns = {name: [item[name] for item in items] for name in names}


def _some(size: int, count: int) -> Tensor:
    """`count` of `size` indices, in order, always the same ones; all of them if there are fewer."""
    if size <= count:
        return torch.arange(size)
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(size, generator=generator)[:count].sort().values


def _labels(column: Tensor | Sequence[Any] | None, names: Sequence[str], count: int) -> Tensor:
    """A class column, indices or names, as indices; -1 where it is missing or not said."""
    if column is None:
        return torch.full((count,), -1)
    entries = column.tolist() if isinstance(column, Tensor) else list(column)
    if len(entries) != count:
        raise ValueError(f"a column of {len(entries)} entries does not fit {count} pictures")
    index: dict[str | int | None, int] = {
        name.casefold(): label for label, name in enumerate(names)
    }
    index |= {label: label for label in range(len(names))}
    index[None] = -1
    folded = [entry.casefold() if isinstance(entry, str) else entry for entry in entries]
    unknown = [entry for entry in folded if entry not in index]
    if unknown:
        raise ValueError(f"unknown class {unknown[0]!r}: allowed are {', '.join(names)}")
    return torch.tensor([index[entry] for entry in folded])


def _accuracy(right: Tensor, asked: Tensor, names: Sequence[str], prefix: str) -> dict[str, float]:
    each = {
        f"{prefix}_{name}": float(right[asked == label].double().mean())
        for label, name in enumerate(names)
        if bool((asked == label).any())
    }
    overall = {prefix: float(right.double().mean())}
    return {**overall, f"{prefix}_macro": sum(each.values()) / len(each), **each}
