"""The schedules of the stochastic differential equations, of EDM and of flow matching."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from anylatent.core.process.schedules.base import Schedule, Time, as_time
from anylatent.core.registry import register


@register("schedule", "vp")
class VariancePreserving(Schedule):
    """The VP-SDE: β(t) rises linearly, log alpha = -(β₁ - β₀)·t²/4 - β₀·t/2 (2011.13456)."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 < beta_min < beta_max:
            raise ValueError(f"need 0 < beta_min < beta_max, got {beta_min} and {beta_max}")
        self.beta_min, self.beta_max = beta_min, beta_max

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self._log_alpha(t)
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        alpha, sigma = self.coefficients(t)
        rate = -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))
        return rate * alpha, -rate * alpha**2 / sigma

    def time(self, log_snr: Time) -> Tensor:
        return self._time_of(0.5 * softplus(-as_time(log_snr)))

    def _time_of(self, loss: Tensor) -> Tensor:
        """t of -log alpha: the root of a quadratic in its stable form."""
        slope = self.beta_max - self.beta_min
        root = (self.beta_min**2 + 4 * slope * loss).sqrt()
        # the limit of loss → ∞ is ∞, which the quotient would make NaN
        t = torch.where(loss.isinf(), torch.inf, 4 * loss / (self.beta_min + root))
        return t.clamp(0, 1)


@register("schedule", "sub_vp")
class SubVariancePreserving(VariancePreserving):
    """The sub-VP SDE: alpha as in `vp`, sigma = 1 - alpha², below `vp`'s at all t (2011.13456)."""

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self._log_alpha(t)
        return log_alpha.exp(), -torch.expm1(2 * log_alpha)

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        alpha = self._log_alpha(t).exp()
        rate = -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min)) * alpha
        return rate, -2 * alpha * rate

    def time(self, log_snr: Time) -> Tensor:
        # 1/alpha - alpha = sigma/alpha, hence -log alpha = asinh(sigma/alpha/2)
        return self._time_of(torch.asinh(0.5 * torch.exp(-0.5 * as_time(log_snr))))

    def gauge(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 * (sigma + (sigma**2 + 4 * alpha**2).sqrt())


@register("schedule", "cosine")
class Cosine(Schedule):
    """alpha = cos(π/2·(t + s)/(1 + s)) / cos(π/2·s/(1 + s)), s = 0.008 (2102.09672).

    In continuous time its terminal SNR is exactly zero.
    """

    def __init__(self, offset: float = 0.008) -> None:
        if offset <= 0:
            raise ValueError(f"the offset must be positive, got {offset}")
        self.offset = offset
        self._start = math.cos(math.pi / 2 * offset / (1 + offset))

    def _angle(self, t: Tensor) -> Tensor:
        """π/2 minus the cosine's argument: exactly 0 at t = 1."""
        return math.pi / 2 * (1 - t) / (1 + self.offset)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self._angle(t).sin() / self._start
        # 1 - alpha² = sin(a)·sin(b) / start², exact near t = 0
        scale = math.pi / 2 / (1 + self.offset)
        variance = (scale * t).sin() * (scale * (t + 2 * self.offset)).sin() / self._start**2
        return alpha, variance.clamp(min=0).sqrt()

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        alpha, sigma = self.coefficients(t)
        alpha_rate = -math.pi / 2 / (1 + self.offset) * self._angle(t).cos() / self._start
        return alpha_rate, -alpha * alpha_rate / sigma

    def time(self, log_snr: Time) -> Tensor:
        log_snr = as_time(log_snr)
        # sin² of the angle between data and the point, from the side that keeps its digits
        variance, alpha = torch.sigmoid(-log_snr), torch.sigmoid(log_snr).sqrt()
        scale = math.pi / 2 / (1 + self.offset)
        late = 1 - torch.asin((alpha * self._start).clamp(0, 1)) / scale
        # variance·start² = sin(scale·t)·sin(scale·(t + 2s)) = sin²(scale·(t + s)) - sin²(scale·s)
        sine = self.offset * scale
        square = variance * self._start**2 + math.sin(sine) ** 2
        early = torch.asin(square.clamp(0, 1).sqrt()) / scale - self.offset
        return torch.where(log_snr > 0, early, late).clamp(0, 1)


@register("schedule", "edm")
class VarianceExploding(Schedule):
    """alpha = 1, sigma = 80·t⁷: Karras et al.'s noise levels as a schedule (2206.00364)."""

    def __init__(self, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        if sigma_max <= 0 or rho < 1:
            raise ValueError(f"need sigma_max > 0 and rho >= 1, got {sigma_max} and {rho}")
        self.sigma_max, self.rho = sigma_max, rho

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_max * t**self.rho

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        return torch.zeros_like(t), self.rho * self.sigma_max * t ** (self.rho - 1)

    def time(self, log_snr: Time) -> Tensor:
        sigma = torch.exp(-0.5 * as_time(log_snr))
        return ((sigma / self.sigma_max) ** (1 / self.rho)).clamp(0, 1)

    def gauge(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha


@register("schedule", "flow")
class RectifiedFlow(Schedule):
    """alpha = 1 - t, sigma = t: straight lines between data and noise (2209.03003, 2210.02747)."""

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        return -torch.ones_like(t), torch.ones_like(t)

    def time(self, log_snr: Time) -> Tensor:
        return torch.sigmoid(-0.5 * as_time(log_snr))

    def gauge(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha + sigma
