"""Figures about pictures: distances of samples to real ones, and losses of reconstructions."""

from anylatent.modalities.image.metrics.references import References, references_of
from anylatent.modalities.image.metrics.suite import (
    ClassAccuracy,
    Frechet,
    Memorisation,
    PictureMetric,
    Restoration,
)

__all__ = [
    "ClassAccuracy",
    "Frechet",
    "Memorisation",
    "PictureMetric",
    "References",
    "Restoration",
    "references_of",
]
