"""Figures about texts: likelihood, n-grams, copies, chemistry, and what was asked for."""

from anylatent.modalities.text.metrics.evaluator import Evaluator
from anylatent.modalities.text.metrics.ngrams import (
    distinct,
    divergence,
    edit_distance,
    grams,
    length_distance,
)
from anylatent.modalities.text.metrics.suite import (
    Classes,
    Copies,
    Likelihood,
    NGrams,
    SmilesShares,
    TextMetric,
    TextsRestored,
)

__all__ = [
    "Classes",
    "Copies",
    "Evaluator",
    "Likelihood",
    "NGrams",
    "SmilesShares",
    "TextMetric",
    "TextsRestored",
    "distinct",
    "divergence",
    "edit_distance",
    "grams",
    "length_distance",
]
