"""Laws of times that stay as they are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anylatent.core.process.schedules import Schedule
from anylatent.core.process.times.base import Times, positive
from anylatent.core.registry import register


@register("times", "uniform")
class Uniform(Times):
    """t uniform on [0, 1]."""

    def __init__(self, stratified: bool = False) -> None:
        super().__init__()
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
        super().__init__()
        self.mean, self.std, self.stratified = mean, positive(std), stratified

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return schedule.time(-2 * _normal_quantile(u, self.mean, self.std))

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        log_ratio = -0.5 * schedule.log_snr(t)
        return _normal_density(log_ratio, self.mean, self.std) * (-0.5) * schedule.log_snr_rate(t)


@register("times", "logit_normal")
class LogitNormal(Times):
    """logit(t) normal: more of the middle, where flow matching is hardest (2403.03206)."""

    def __init__(self, mean: float = 0.0, std: float = 1.0, stratified: bool = False) -> None:
        super().__init__()
        self.mean, self.std, self.stratified = mean, positive(std), stratified

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return torch.sigmoid(_normal_quantile(u, self.mean, self.std))

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        return _normal_density(torch.logit(t), self.mean, self.std) / (t * (1 - t))
