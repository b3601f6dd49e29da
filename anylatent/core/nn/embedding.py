"""Features of the noise level.

`c_noise` is a clamped −log-SNR / 4, within about [−5, 5]. Features are the sine and cosine of
frequency·c_noise, computed in float32 at least; their longest period exceeds the range, so that
its ends differ, and the shortest resolves about a hundredth of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anylatent.core.registry import group, register

FEATURES = {"features": ("features", "sinusoidal")}
"""For `register(..., parts=FEATURES)`: a backbone whose features of the noise level are a part."""


class Features(nn.Module):
    """A fixed map of numbers (...) to `size` features each, (..., size)."""

    size: int


group("features", Features)


@register("features", "sinusoidal")
class SinusoidalFeatures(Features):
    """cos and sin at geometrically spaced frequencies, (...) to (..., size). 1706.03762.

    `longest` and `shortest` are the periods, in the unit of the argument.
    """

    frequencies: Tensor

    def __init__(self, size: int = 128, longest: float = 40.0, shortest: float = 0.2) -> None:
        super().__init__()
        self.size = _check_even(size)
        periods = torch.logspace(math.log10(longest), math.log10(shortest), size // 2)
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return _waves(x, self.frequencies)


@register("features", "fourier")
class FourierFeatures(Features):
    """cos and sin at fixed random frequencies 2π·bandwidth·N(0, 1), (...) to (..., size).

    2006.10739. The frequencies are part of the state, as they belong to the weights that read them.
    """

    frequencies: Tensor

    def __init__(self, size: int = 128, bandwidth: float = 0.5) -> None:
        super().__init__()
        self.size = _check_even(size)
        self.register_buffer("frequencies", 2 * math.pi * bandwidth * torch.randn(size // 2))

    def forward(self, x: Tensor) -> Tensor:
        return _waves(x, self.frequencies)


class NoiseEmbedding(nn.Module):
    """Features of c_noise and a two-layer network, (...) to (..., width).

    Sinusoidal features by default.
    """

    def __init__(self, width: int, features: Features | None = None) -> None:
        super().__init__()
        self.features = SinusoidalFeatures() if features is None else features
        self.first = nn.Linear(self.features.size, width)
        self.second = nn.Linear(width, width)

    def forward(self, c_noise: Tensor) -> Tensor:
        features = self.features(c_noise).to(self.first.weight.dtype)
        embedding: Tensor = self.second(nn.functional.silu(self.first(features)))
        return embedding


def grid_positions(height: int, width: int, size: int) -> Tensor:
    """Sine-cosine positions of a grid, (height·width, size): half for rows, half for columns."""
    if size % 4:
        raise ValueError(f"positions of a grid need a size divisible by 4, got {size}")
    frequencies = 1e4 ** (-torch.arange(size // 4) / (size // 4))
    rows = _waves(torch.arange(height).float(), frequencies)
    columns = _waves(torch.arange(width).float(), frequencies)
    both = (
        rows[:, None].expand(height, width, -1),
        columns[None].expand(height, width, -1),
    )
    return torch.cat(both, -1).flatten(0, 1)


def _waves(x: Tensor, frequencies: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    angle = x.to(wide)[..., None] * frequencies.to(wide)
    return torch.cat((angle.cos(), angle.sin()), -1)


def _check_even(size: int) -> int:
    if size < 2 or size % 2:
        raise ValueError(f"features come in pairs: their number must be even, got {size}")
    return size
