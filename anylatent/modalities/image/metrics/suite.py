"""The metrics of pictures: distances to real ones, copies, classes, and how they are restored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from anylatent.core.modality import Data, Metric, Modality, Outputs
from anylatent.modalities.image.metrics.classes import labels, shares
from anylatent.modalities.image.metrics.references import Judged, chosen, pictures, references_of
from anylatent.modalities.shared.distances import (
    Nearest,
    frechet,
    kernel_distance,
    nearer,
    nearest,
    precision_recall,
)
from anylatent.modalities.shared.perceptual import Perceptual
from anylatent.modalities.shared.restoration import psnr, ssim


class PictureMetric(Metric, ABC):
    """Figures of pictures and their features; at most `limit` pictures of either part are used.

    There are rows for held-out, training, and blurred held-out pictures.
    """

    modality: ClassVar[str] = "image"

    def __init__(self, data: Data, limit: int = 5000) -> None:
        self.references = references_of(data, limit)

    @abstractmethod
    def row(self, judged: Judged) -> dict[str, float]:
        """The figures of some pictures."""

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        return self.row(self.references.judged(outputs, columns))

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        return {name: self.row(judged) for name, judged in self.references.rows.items()}


class Frechet(PictureMetric):
    """Distances of EfficientNet-Lite0 features to those of real pictures.

    `pictures`: how many samples they are about (the number of held-out pictures, or fewer if there
    were fewer, which makes the Fréchet distance larger); `frechet_efficientnet`,
    `kernel_efficientnet` (unbiased), `precision`, `recall`. They say most where the samples'
    classes are as frequent as among held-out pictures, of which at most `limit` are used.
    """

    place: ClassVar[int] = 0

    def row(self, judged: Judged) -> dict[str, float]:
        some, real = judged.features[chosen(len(judged.features), len(judged.real))], judged.real
        precision, recall = precision_recall(some, real)
        return {
            "pictures": float(len(some)),
            "frechet_efficientnet": frechet(some, real),
            "kernel_efficientnet": kernel_distance(some, real),
            "precision": precision,
            "recall": recall,
        }


class Memorisation(PictureMetric):
    """How near samples are to training pictures, in EfficientNet-Lite0 features.

    `nearest_training`: the median distance to the nearest; `nearer_than_held_out`: the probability
    that a sample is nearer to one than a held-out picture is (.5 for the true law, 1 for copies);
    `near_copies`: the fraction nearer than the nearest twentieth of the held-out ones (.05 for the
    true law). At most `limit` pictures of either part are used.
    """

    place: ClassVar[int] = 1

    def row(self, judged: Judged) -> dict[str, float]:
        distance = nearest(judged.features, self.references.features["train"]).distance
        usual = self.references.usual_distance
        return {
            "nearest_training": float(distance.median()),
            "nearer_than_held_out": nearer(distance, usual),
            "near_copies": float((distance < usual.quantile(0.05)).double().mean()),
        }

    def nearest(self, outputs: Outputs) -> Nearest:
        """The distance of each output to the nearest training picture, and which one that is."""
        found = self.references.judged(outputs, {}).features
        return nearest(found, self.references.features["train"])


class ClassAccuracy(PictureMetric):
    """How often a classifier names the class that was asked for; it learned from training pictures.

    `accuracy`, `accuracy_macro` (the mean over classes), `accuracy_<class>`, given that the columns
    tell the class. The rows of real pictures have how often it is right about them. With several
    class columns the names begin with the column's. The classifier learns from at most `limit`.
    """

    place: ClassVar[int] = 2

    @classmethod
    def applies(cls, modality: Modality, data: Data) -> bool:
        return super().applies(modality, data) and bool(data.classes)

    def row(self, judged: Judged) -> dict[str, float]:
        row: dict[str, float] = {}
        classes = self.references.data.classes
        for key, names in classes.items():
            asked = labels(judged.columns.get(key), names, len(judged.images))
            known = asked >= 0
            if not bool(known.any()):
                continue
            judge = self.references.classifiers[key]
            named = judge(judged.images[known].cpu(), judged.features[known]).argmax(1)
            prefix = "" if len(classes) == 1 else f"{key}_"
            row |= shares(named == asked[known], asked[known], names, f"{prefix}accuracy")
        return row


class Restoration(Metric):
    """How well pictures are restored.

    `psnr` (dB, the mean of the pictures' own), `ssim`, `perceptual` (LPIPS by AlexNet, 1801.03924).
    """

    modality: ClassVar[str] = "image"
    place: ClassVar[int] = 3

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> dict[str, float]:
        before, after = pictures(originals), pictures(outputs)
        with torch.no_grad():
            distance = Perceptual("alex")(before.float(), after.float())
        return {
            "psnr": float(psnr(before, after).mean()),
            "ssim": float(ssim(before, after).mean()),
            "perceptual": float(distance.mean()),
        }
