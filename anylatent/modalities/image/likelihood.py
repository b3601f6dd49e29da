"""The law of the bytes of a picture around a restored one, for likelihoods of data."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from anylatent.core.autoencoders import of_any_scale

LEVELS = 256


def log_prob(images: Tensor, outputs: Tensor) -> Tensor:
    """log p(picture | restored picture) in nats, (B,), float64; both (B, C, H, W) about [-1, 1].

    Each number is a discretised logistic law of the 256 levels around its restored value
    (1606.04934), all of one scale per picture, which is unknown: see `of_any_scale`. The lowest and
    the highest level have all that is beyond, so that probabilities add up to one.
    """
    level = ((images.double() + 1) * (LEVELS - 1) / 2).round().clamp(0, LEVELS - 1)
    half = 1 / (LEVELS - 1)  # of the distance of two levels
    gap = (2 * half * level - 1) - outputs.double()

    def law(scale: float) -> Tensor:
        above, below = logsigmoid((gap + half) / scale), logsigmoid(-(gap - half) / scale)
        # σ(a) - σ(b) = σ(a)·σ(-b)·(1 - exp(b - a))
        between = above + below + math.log(-math.expm1(-2 * half / scale))
        nats = torch.where(level == 0, above, torch.where(level == LEVELS - 1, below, between))
        return nats.flatten(1).sum(1)

    return of_any_scale(law)
