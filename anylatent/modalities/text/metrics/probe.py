"""Logistic regression: the class of a text from its features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

PENALTY = 0.003
VERSION = 1


def fit(features: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
    """Weights of a penalised logistic regression of labels (N,) on features (N, D).

    Features are standardised; the loss −mean log p + penalty · |W|² is convex, and minimised from
    zero by L-BFGS in float64, so that the result is the same anywhere.
    """
    centre, scale = features.mean(0), features.std(0, correction=0) + 1e-3
    x = ((features - centre) / scale).double()
    layer = nn.Linear(features.shape[1], classes, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(layer(x), labels) + PENALTY * layer.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    weights = {"weight": layer.weight.detach(), "bias": layer.bias.detach()}
    return {"centre": centre, "scale": scale, **weights}


def named(state: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """The most likely class of each text, (N,)."""
    x = ((features - state["centre"]) / state["scale"]).double()
    return functional.linear(x, state["weight"], state["bias"]).argmax(1)
