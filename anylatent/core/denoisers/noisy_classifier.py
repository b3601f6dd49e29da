"""Classifiers of noisy latents, trained after a diffusion model, which guidance follows.

A run keeps one for a label in `classifiers/<label>.safetensors`: averaged weights, and as metadata
in JSON what they were built from. Loading executes nothing: a file can name registered backbones
only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from anylatent.core.denoisers.preconditioned import network_input
from anylatent.core.latents import Field, Latent
from anylatent.core.nn.backbone import Backbone
from anylatent.core.process import Schedule, Time, as_time

Classify: TypeAlias = Callable[[Latent, Time], Tensor]
"""x_t, t → log p(class | x_t), shape (B, classes)."""


class NoisyClassifier(nn.Module):
    """log p(class | x_t) = log softmax(b + c·W·f), f what a backbone makes of c_in·x_t.

    c = α/√(α² + σ²): the exact posterior is its prior plus terms of order α, and with this factor
    σ²/α times its gradient, which guidance adds to x0, stays of order one at every noise level.

    f has the mean over the entries of each field of variable length, all numbers of a fixed one,
    and the mean squared length of the entries of a centred one, which no rotation changes. So it
    depends on no padding. `backbone`: for the latents alone, without conditions. `classes`: their
    number. x_t of any shape of its spec, t of shape (), (B,) or (B, T) → (B, classes).
    """

    def __init__(self, backbone: Backbone, schedule: Schedule, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {classes}")
        self.backbone, self.schedule = backbone, schedule
        sizes = [_features(field) for field in backbone.spec.fields.values()]
        self.head = nn.Linear(sum(sizes), classes)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Latent, t: Time) -> Tensor:
        t = as_time(t)
        scaled, c_noise = network_input(self.schedule, x, t, 1.0)
        output: Latent = self.backbone(scaled, c_noise)
        output = output.to(x.dtype).project()
        features = torch.cat([_reduce(output, name) for name in output.parts], 1)
        alpha, sigma = self.schedule.coefficients(t)
        share = alpha * (alpha**2 + sigma**2).rsqrt()
        if share.ndim == 2:  # one time per frame
            share = share.mean(1)
        share = share.to(features.device, features.dtype).reshape(-1, 1)
        logits = self.head(share * features)
        return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), -1)


def _features(field: Field) -> int:
    """How many numbers a field gives."""
    if field.centred:
        return 1
    return math.prod(field.rest) * (1 if field.variable else int(field.shape[0] or 0))


def _reduce(output: Latent, name: str) -> Tensor:
    """The numbers of a field, (B, features)."""
    x, field = output[name], output.spec.fields[name]
    count = output.lengths(name).to(x)[:, None]
    if field.centred:
        return x.square().flatten(1).sum(1, keepdim=True) / count
    return x.sum(1).flatten(1) / count if field.variable else x.flatten(1)
