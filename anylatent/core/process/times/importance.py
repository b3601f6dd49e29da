"""Importance sampling of the times, in closed form for data that are Normal (2106.05931, app. B).

For data N(0, 1) the exact denoiser errs by E‖x̂0 - x0‖² = 1/(1 + SNR), so a loss with the weight
w(λ) of the bound, ½·w·SNR·‖x̂0 - x0‖²·|dλ|, has the integrand ½·w·sigmoid(λ)·|dλ|. Times of the
density proportional to it make every sample's loss the same on average: no law has less variance.
With v = sigmoid(-λ), the noise's share of the variance (sigma² where alpha² + sigma² = 1),

    ll   w = 1             likelihood    d(log v), uniform in log v
    re   w = sigmoid(-λ)   reweighted    dv, uniform in v
    un   plain noise error in uniform t  (1 - v)·dt, tabulated

The weightings are `elbo`, `sigmoid` with bias 0, and `uniform`.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import softplus

from anylatent.core.process.schedules import Schedule
from anylatent.core.process.times.base import Times, level_limits
from anylatent.core.process.times.curve import Curve
from anylatent.core.registry import register


class Levels(Times):
    """A law that is uniform in a function of λ that rises with the noise."""

    def __init__(self, stratified: bool = False) -> None:
        super().__init__()
        self.stratified = stratified

    @abstractmethod
    def height(self, log_snr: Tensor) -> Tensor:
        """The function."""

    @abstractmethod
    def level(self, height: Tensor) -> Tensor:
        """λ of a height."""

    @abstractmethod
    def slope(self, log_snr: Tensor) -> Tensor:
        """|d height / dλ|."""

    def _ends(self, schedule: Schedule) -> Tensor:
        """The heights at least and at most noise."""
        low, high = level_limits(schedule)
        ends: Tensor = self.height(torch.tensor([high, low], dtype=torch.float64))
        return ends

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        first, last = self._ends(schedule).to(u)
        return schedule.time(self.level(first + u * (last - first)))

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        span = self._ends(schedule).diff().to(t)
        return self.slope(schedule.log_snr(t)) * -schedule.log_snr_rate(t) / span


@register("times", "importance_ll")
class LikelihoodImportance(Levels):
    """log v uniform: least variance for weighting=elbo on Normal data (2106.05931).

    On `geometric` this is uniform t but for its start.
    """

    def height(self, log_snr: Tensor) -> Tensor:
        softened: Tensor = softplus(log_snr, threshold=math.inf)
        return -softened

    def level(self, height: Tensor) -> Tensor:
        return torch.log(torch.expm1(-height))

    def slope(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(log_snr)


@register("times", "importance_re")
class ReweightedImportance(Levels):
    """v uniform: least variance for weighting=sigmoid weighting.bias=0 on Normal data
    (2106.05931)."""

    def height(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr)

    def level(self, height: Tensor) -> Tensor:
        return -torch.logit(height)

    def slope(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(log_snr) * torch.sigmoid(-log_snr)


@register("times", "importance_un")
class UnweightedImportance(Times):
    """Density ∝ 1 - v: least variance for weighting=uniform on Normal data (2106.05931).

    1 - v is averaged over `bins` equal parts of t. On `vp` it is a Gaussian in t.
    """

    def __init__(self, bins: int = 1000, stratified: bool = False) -> None:
        super().__init__()
        if bins < 1:
            raise ValueError(f"need bins >= 1, got {bins}")
        self.bins, self.stratified = bins, stratified

    def _curve(self, schedule: Schedule) -> Curve:
        middles = (torch.arange(self.bins, dtype=torch.float64) + 0.5) / self.bins
        return Curve.of(torch.sigmoid(schedule.log_snr(middles)).detach())

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return self._curve(schedule).inverse(u).to(u)

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        return self._curve(schedule).slope(t).to(t)  # the table lies on the CPU
