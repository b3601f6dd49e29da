"""Denoisers around denoisers that follow conditions more closely."""

from anylatent.core.guidance.autoguidance import Autoguidance, OnlyConditions
from anylatent.core.guidance.base import Guided
from anylatent.core.guidance.classifier import ClassifierGuidance
from anylatent.core.guidance.classifier_free import ClassifierFree
from anylatent.core.guidance.projected import Projected

__all__ = [
    "Autoguidance",
    "ClassifierFree",
    "ClassifierGuidance",
    "Guided",
    "OnlyConditions",
    "Projected",
]
