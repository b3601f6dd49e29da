"""Guidance: denoisers that wrap denoisers, so that they stack and every solver takes them."""

from anylatent.core.guidance.classifier import ClassifierGuidance
from anylatent.core.guidance.classifier_free import ClassifierFree

__all__ = ["ClassifierFree", "ClassifierGuidance"]
