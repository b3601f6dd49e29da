"""The interface of a law of times."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from anylatent.core.latents import Noise
from anylatent.core.process.schedules import Schedule
from anylatent.core.process.schedules.base import LOG_SNR_LIMIT
from anylatent.core.registry import group

GOLDEN = (math.sqrt(5) - 1) / 2


class Times(nn.Module, ABC):
    """A law of t on [0, 1]; samples keep λ within ±20, where targets and weights are finite."""

    stratified: bool = False
    adapts: bool = False
    """Whether it follows the loss that it samples, so that its density has to be divided out."""

    @abstractmethod
    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The time below which a fraction u of the law lies, in the shape of u."""

    @abstractmethod
    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        """The law's density with respect to t."""

    def observe(
        self, t: Tensor, error: Tensor, schedule: Schedule, loss: Tensor | None = None
    ) -> None:
        """The errors of a training step at times of the same shape and, where they differ, the
        losses that the weighting makes of them; most laws are fixed and ignore both."""
        return None

    def sample(self, noise: Noise, schedule: Schedule, entries: int | None = None) -> Tensor:
        """Times of shape (B,), float64; or (B, T), independent, for T `entries` of each sample.

        Stratified are those of samples: entries, of which there are many, are drawn one by one.
        """
        u = noise.uniform() if entries is None else noise.uniform(entries)
        if self.stratified and entries is None:
            u = (noise.shared_uniform() + GOLDEN * noise.positions) % 1
        t = self.quantile(u.clamp(1e-7, 1 - 1e-7), schedule)
        return t.clamp(*time_limits(schedule))


group("times", Times)


def time_limits(schedule: Schedule) -> tuple[float, float]:
    """The times between which |λ| ≤ 20."""
    levels = torch.tensor([LOG_SNR_LIMIT, -LOG_SNR_LIMIT], dtype=torch.float64)
    first, last = schedule.time(levels).tolist()
    return first, last


def level_limits(schedule: Schedule) -> tuple[float, float]:
    """The least and the greatest λ that times within `time_limits` have."""
    with torch.no_grad():
        return max(float(schedule.log_snr(1.0)), -LOG_SNR_LIMIT), LOG_SNR_LIMIT


def positive(std: float) -> float:
    if std <= 0:
        raise ValueError(f"std must be positive, got {std}")
    return std
