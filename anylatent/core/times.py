"""Which noise levels a training step sees.

Every sampler is a quantile function of a uniform number, so that any of them can be stratified:
with `stratified`, sample i of the joint batch takes u₀ + i·φ mod 1 with the golden ratio φ, a
low-discrepancy sequence whose members are each uniform.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from anylatent.core.denoiser import LOG_SNR_LIMIT
from anylatent.core.noise import Noise
from anylatent.core.registry import register
from anylatent.core.schedules import Schedule

GOLDEN = (math.sqrt(5) - 1) / 2


class Times(ABC):
    """A law of t on [0, 1]; samples keep λ within ±20, where targets and weights are finite."""

    stratified: bool = False

    @abstractmethod
    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The time below which a fraction u of the law lies, in the shape of u."""

    @abstractmethod
    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        """The law's density with respect to t."""

    def sample(self, noise: Noise, schedule: Schedule) -> Tensor:
        """Times of shape (B,), float64 on the CPU."""
        u = noise.uniform()
        if self.stratified:
            u = (noise.shared_uniform() + GOLDEN * noise.positions) % 1
        t = self.quantile(u.clamp(1e-7, 1 - 1e-7), schedule)
        return t.clamp(*time_limits(schedule))


def time_limits(schedule: Schedule) -> tuple[float, float]:
    """The times between which |λ| ≤ 20."""
    return float(schedule.time(LOG_SNR_LIMIT)), float(schedule.time(-LOG_SNR_LIMIT))


@register("times", "uniform")
class Uniform(Times):
    """t uniform on [0, 1]."""

    def __init__(self, stratified: bool = False) -> None:
        self.stratified = stratified

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return u

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        return torch.ones_like(t)


@register("times", "low_discrepancy")
def low_discrepancy() -> Uniform:
    """Uniform and stratified over the batch, for a lower variance of the loss (2107.00630)."""
    return Uniform(stratified=True)


def _normal_quantile(u: Tensor, mean: float, std: float) -> Tensor:
    standard: Tensor = torch.special.ndtri(u)
    return mean + std * standard


def _normal_density(x: Tensor, mean: float, std: float) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


@register("times", "log_normal")
class LogNormal(Times):
    """log(sigma/alpha) normal: EDM's law of noise levels, on any schedule (2206.00364)."""

    def __init__(self, mean: float = -1.2, std: float = 1.2, stratified: bool = False) -> None:
        self.mean, self.std, self.stratified = mean, _positive(std), stratified

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return schedule.time(-2 * _normal_quantile(u, self.mean, self.std))

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        log_ratio = -0.5 * schedule.log_snr(t)
        return _normal_density(log_ratio, self.mean, self.std) * (-0.5) * schedule.log_snr_rate(t)


@register("times", "logit_normal")
class LogitNormal(Times):
    """logit(t) normal: more of the middle, where flow matching is hardest (2403.03206)."""

    def __init__(self, mean: float = 0.0, std: float = 1.0, stratified: bool = False) -> None:
        self.mean, self.std, self.stratified = mean, _positive(std), stratified

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return torch.sigmoid(_normal_quantile(u, self.mean, self.std))

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        return _normal_density(torch.logit(t), self.mean, self.std) / (t * (1 - t))


def _positive(std: float) -> float:
    if std <= 0:
        raise ValueError(f"std must be positive, got {std}")
    return std
