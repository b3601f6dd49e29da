"""The density of normal latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anylatent.core.latents import Latent


def log_normal(x: Latent, std: Tensor | float) -> Tensor:
    """log N(x; 0, std²) on the subspace, shape (B,), float64 but for the squared norm."""
    std = torch.as_tensor(std, dtype=torch.float64)
    constant = std.log() + 0.5 * math.log(2 * math.pi)
    return -0.5 * x.dot(x) / std**2 - x.dim.double() * constant
