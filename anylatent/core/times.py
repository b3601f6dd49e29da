"""Which noise levels a training step sees.

Every sampler is a quantile function of a uniform number, so that any of them can be stratified:
with `stratified`, sample i of the joint batch takes u₀ + i·φ mod 1 with the golden ratio φ, a
low-discrepancy sequence whose members are each uniform.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from anylatent.core.denoiser import LOG_SNR_LIMIT
from anylatent.core.noise import Noise
from anylatent.core.registry import register
from anylatent.core.schedules import Schedule

GOLDEN = (math.sqrt(5) - 1) / 2


class Times(nn.Module, ABC):
    """A law of t on [0, 1]; samples keep λ within ±20, where targets and weights are finite."""

    stratified: bool = False

    @abstractmethod
    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The time below which a fraction u of the law lies, in the shape of u."""

    @abstractmethod
    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        """The law's density with respect to t."""

    def observe(self, t: Tensor, loss: Tensor, schedule: Schedule) -> None:
        """The losses (B,) of a training step at times (B,); most laws are fixed and ignore them."""
        return None

    def sample(self, noise: Noise, schedule: Schedule) -> Tensor:
        """Times of shape (B,), float64."""
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
        super().__init__()
        self.mean, self.std, self.stratified = mean, _positive(std), stratified

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return torch.sigmoid(_normal_quantile(u, self.mean, self.std))

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        return _normal_density(torch.logit(t), self.mean, self.std) / (t * (1 - t))


@register("times", "warped")
class Warped(Times):
    """Noise levels as often as the loss grows there: linear in warped time. CDCD (2211.15089).

    The mean loss L is followed in `bins` equal steps of b = 1/(1 + exp(λ/scale)), which grows with
    the noise, by moving averages over about `memory` steps; L made monotone, F = (L - L(0)) / (L(1)
    - L(0)) is the distribution function of b, mixed with a share `plain` of the uniform law. Before
    any loss is known, b is uniform.
    """

    loss: Tensor
    seen: Tensor

    def __init__(
        self,
        bins: int = 100,
        scale: float = 2.0,
        memory: int = 300,
        plain: float = 0.05,
        stratified: bool = True,
    ) -> None:
        super().__init__()
        if bins < 2 or memory < 1 or not 0 < plain <= 1:
            raise ValueError(
                f"need bins >= 2, memory >= 1 and 0 < plain <= 1, got {bins}, {memory}, {plain}"
            )
        self.bins, self.memory, self.plain = bins, memory, plain
        self.scale, self.stratified = _positive(scale), stratified
        self.register_buffer("loss", torch.zeros(bins))
        self.register_buffer("seen", torch.zeros(bins))

    @torch.no_grad()
    def observe(self, t: Tensor, loss: Tensor, schedule: Schedule) -> None:
        place = (self._base(schedule.log_snr(t)) * self.bins).long().clamp(0, self.bins - 1)
        sums = self.loss.new_zeros(2, self.bins)
        values = torch.stack([loss.to(sums), torch.ones_like(loss).to(sums)])
        sums.index_add_(1, place.to(sums.device), values)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        total, count = sums
        self.seen += (count > 0).to(sums)
        rate = 1 / self.seen.clamp(1, self.memory)
        self.loss += torch.where(count > 0, rate * (total / count.clamp(min=1) - self.loss), 0)

    def _base(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / self.scale)

    def _knots(self, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """b and F at the ends and the middles of the bins, up to the schedule's most noise."""
        loss = self.loss.cpu().double() if self.loss.device.type == "mps" else self.loss.double()
        b = (torch.arange(self.bins, dtype=torch.float64, device=loss.device) + 0.5) / self.bins
        b = torch.cat([b.new_zeros(1), b, b.new_ones(1)])
        level = _monotone(loss, (self.seen > 0).to(loss.device))
        level = torch.cat([level[:1], level, level[-1:]])
        rise = level[-1] - level[0]
        grown = torch.where(rise > 0, (level - level[0]) / rise.clamp(min=1e-300), b)
        f = (1 - self.plain) * grown + self.plain * b
        most = self._base(torch.as_tensor(schedule.log_snr(1.0), dtype=torch.float64)).to(b)
        f = f / _interpolate(most, b, f)
        return b, f

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        b, f = self._knots(schedule)
        found = _interpolate(u.to(f), f, b)
        return schedule.time(-self.scale * torch.logit(found))

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        b, f = self._knots(schedule)
        at = self._base(schedule.log_snr(t)).to(f)
        cell = torch.searchsorted(b, at, right=True).clamp(1, len(b) - 1)
        slope = (f[cell] - f[cell - 1]) / (b[cell] - b[cell - 1])
        return slope * at * (1 - at) / self.scale * -schedule.log_snr_rate(t).to(f)


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """The piecewise linear function through (xs, ys), xs rising, at x."""
    cell = torch.searchsorted(xs, x, right=True).clamp(1, len(xs) - 1)
    share = (x - xs[cell - 1]) / (xs[cell] - xs[cell - 1])
    return ys[cell - 1] + share * (ys[cell] - ys[cell - 1])


def _monotone(values: Tensor, known: Tensor) -> Tensor:
    """A rising curve near the known values: the mean of the least one above and the greatest one
    below. Unknown values follow their neighbours."""
    above = torch.where(known, values, torch.inf).flip(0).cummin(0).values.flip(0)
    below = torch.where(known, values, -torch.inf).cummax(0).values
    above, below = (
        torch.where(above.isinf(), below, above),
        torch.where(below.isinf(), above, below),
    )
    return torch.where(known.any(), (above + below) / 2, 0.0)


def _positive(std: float) -> float:
    if std <= 0:
        raise ValueError(f"std must be positive, got {std}")
    return std
