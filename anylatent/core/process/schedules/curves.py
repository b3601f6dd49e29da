"""Variance-preserving schedules whose sigma² is a formula in t, each exact at both ends.

Some were published as tables that start at a small noise, or are clipped at the end; in continuous
time they start at sigma(0) = 0 exactly, and clipping has no part.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anylatent.core.process.schedules.base import VarianceCurve
from anylatent.core.registry import register


@register("schedule", "polynomial")
class Polynomial(VarianceCurve):
    """alpha² = (1 - s)·(1 - t^power)² + s with s = `floor`: EDM for molecules (2203.17003).

    Published is (1 - 2s)·(1 - t²)² + s, which starts at sigma² = s.
    """

    def __init__(self, power: float = 2.0, floor: float = 1e-5) -> None:
        if power < 1 or not 0 < floor < 1:
            raise ValueError(f"need power >= 1 and 0 < floor < 1, got {power} and {floor}")
        self.power, self.floor = power, floor

    def squares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        fall, share = t**self.power, 1 - self.floor
        return share * (1 - fall) ** 2 + self.floor, share * fall * (2 - fall)

    def variance_rate(self, t: Tensor) -> Tensor:
        fall = t**self.power
        return 2 * (1 - self.floor) * (1 - fall) * self.power * t ** (self.power - 1)

    def early(self, variance: Tensor) -> Tensor:
        gone = (variance / (1 - self.floor)).clamp(0, 1)  # 1 - (1 - t^power)²
        return (gone / (1 + (1 - gone).sqrt())) ** (1 / self.power)

    def late(self, signal: Tensor) -> Tensor:
        left = ((signal - self.floor) / (1 - self.floor)).clamp(0, 1)
        return (1 - left.sqrt()) ** (1 / self.power)


@register("schedule", "sqrt")
class SquareRoot(VarianceCurve):
    """sigma² = (√u - √u₀) / (1 - √u₀) with u = (t + s)/(1 + s): Diffusion-LM (2205.14217).

    Noise comes fast at first, as suits embeddings of words. s = `offset`; u₀ is u at t = 0. As in
    `cosine`, u ends at 1 exactly, so the terminal SNR is zero.
    """

    def __init__(self, offset: float = 1e-4) -> None:
        if offset <= 0:
            raise ValueError(f"the offset must be positive, got {offset}")
        self.offset = offset
        self._start = math.sqrt(offset / (1 + offset))

    def _root(self, t: Tensor) -> Tensor:
        return ((t + self.offset) / (1 + self.offset)).sqrt()

    def squares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        root, scale = self._root(t), (1 + self.offset) * (1 - self._start)
        return (1 - t) / (1 + root) / scale, t / (root + self._start) / scale

    def variance_rate(self, t: Tensor) -> Tensor:
        return 0.5 / (self._root(t) * (1 + self.offset) * (1 - self._start))

    def early(self, variance: Tensor) -> Tensor:
        risen = variance * (1 - self._start)
        return (1 + self.offset) * risen * (risen + 2 * self._start)

    def late(self, signal: Tensor) -> Tensor:
        left = signal * (1 - self._start)
        return 1 - (1 + self.offset) * left * (2 - left)


@register("schedule", "geometric")
class GeometricVariance(VarianceCurve):
    """sigma² = (v(t) - v(0)) / (1 - v(0)), v(t) = v_min·(v_max/v_min)^t: LSGM (2106.05931).

    The same SDE as LSGM's, whose latents bring the variance v_min along at t = 0; begun at data
    without it. With variance_max = 1 the terminal SNR is zero.
    """

    def __init__(self, variance_min: float = 3e-5, variance_max: float = 0.999) -> None:
        if not 0 < variance_min < variance_max <= 1:
            raise ValueError(
                f"need 0 < variance_min < variance_max <= 1, got {variance_min}, {variance_max}"
            )
        self.variance_min, self.variance_max = variance_min, variance_max
        self._growth = math.log(variance_max / variance_min)

    def squares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        most = self.variance_max
        signal = (1 - most) - most * torch.expm1((t - 1) * self._growth)
        variance = self.variance_min * torch.expm1(t * self._growth)
        return signal / (1 - self.variance_min), variance / (1 - self.variance_min)

    def variance_rate(self, t: Tensor) -> Tensor:
        grown = self.variance_min * torch.exp(t * self._growth)
        return self._growth * grown / (1 - self.variance_min)

    def early(self, variance: Tensor) -> Tensor:
        grown = variance * (1 - self.variance_min) / self.variance_min
        return torch.log1p(grown) / self._growth

    def late(self, signal: Tensor) -> Tensor:
        above = signal * (1 - self.variance_min) - (1 - self.variance_max)
        return 1 + torch.log1p(-(above.clamp(min=0) / self.variance_max)) / self._growth


@register("schedule", "sigmoid")
class SigmoidCurve(VarianceCurve):
    """sigma² = (S(x) - S(x₀)) / (S(x₁) - S(x₀)), x from x₀ = start/tau to x₁ = end/tau linearly,
    S the logistic function (2212.11972, 2301.10972). The terminal SNR is zero."""

    def __init__(self, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> None:
        if not (start < end and tau > 0):
            raise ValueError(f"need start < end and tau > 0, got {start}, {end} and {tau}")
        self.start, self.end, self.tau = start, end, tau
        self._low, self._high = start / tau, end / tau
        self._span = _logistic(self._high) - _logistic(self._low)

    def _at(self, t: Tensor) -> Tensor:
        return self._low + t * (self._high - self._low)

    def squares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # S(a) - S(b) = sinh((a - b)/2) / (2·cosh(a/2)·cosh(b/2)), which keeps its digits
        half = 0.5 * (self._high - self._low)
        scale = math.sinh(half) * torch.cosh(0.5 * self._at(t))
        signal = torch.sinh((1 - t) * half) * math.cosh(0.5 * self._low)
        variance = torch.sinh(t * half) * math.cosh(0.5 * self._high)
        return signal / scale, variance / scale

    def variance_rate(self, t: Tensor) -> Tensor:
        at = self._at(t)
        slope = torch.sigmoid(at) * torch.sigmoid(-at) * (self._high - self._low)
        return slope / self._span

    def early(self, variance: Tensor) -> Tensor:
        return _moved(self._low, variance * self._span) / (self._high - self._low)

    def late(self, signal: Tensor) -> Tensor:
        return 1 - _moved(-self._high, signal * self._span) / (self._high - self._low)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _moved(x: float, rise: Tensor) -> Tensor:
    """y with S(x + y) = S(x) + rise."""
    return torch.log1p(rise / _logistic(x)) - torch.log1p(-rise / _logistic(-x))
