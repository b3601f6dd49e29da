"""Logistic regression: the class of a text from its features."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from anylatent.modalities.shared.probes import logistic_regression

PENALTY = 0.003
VERSION = 1


def fit(features: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
    """Weights of a penalised logistic regression of labels (N,) on features (N, D).

    Features are standardised, and all is in float64, so that the result is the same anywhere.
    """
    centre, scale = features.mean(0), features.std(0, correction=0) + 1e-3
    x = ((features - centre) / scale).double()
    weight, bias = logistic_regression(x, labels, classes, penalty=PENALTY, iterations=60)
    return {"centre": centre, "scale": scale, "weight": weight, "bias": bias}


def named(state: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """The most likely class of each text, (N,)."""
    x = ((features - state["centre"]) / state["scale"]).double()
    return functional.linear(x, state["weight"], state["bias"]).argmax(1)
