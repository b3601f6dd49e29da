"""Figures about clips: distances of samples to real ones, coherence, and what is completed."""

from anylatent.modalities.video.metrics.completions import CompletionFigures
from anylatent.modalities.video.metrics.control import MotionAsked
from anylatent.modalities.video.metrics.legibility import Legibility
from anylatent.modalities.video.metrics.references import References, references_of
from anylatent.modalities.video.metrics.suite import (
    ClipDistances,
    ClipMetric,
    ClipRestoration,
    Coherence,
)

__all__ = [
    "ClipDistances",
    "ClipMetric",
    "ClipRestoration",
    "Coherence",
    "CompletionFigures",
    "Legibility",
    "MotionAsked",
    "References",
    "references_of",
]
