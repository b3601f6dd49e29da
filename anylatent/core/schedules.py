"""Noise schedules: x_t = alpha(t)·x0 + sigma(t)·noise, t in [0, 1], t = 0 data, t = 1 noise.

The log-SNR λ = 2·log(alpha / sigma) falls strictly. Coefficients are float64 (float32 where the
device has no float64). Ends are exact: sigma(0) = 0 gives λ = ∞ and, where the terminal SNR is
zero, alpha(1) = 0 gives λ = -∞.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor

from anylatent.core.registry import register

Time: TypeAlias = float | Tensor


def as_time(t: Time) -> Tensor:
    """A time or log-SNR as a float64 tensor (float32 where the device lacks float64)."""
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=torch.float64)  # float32 on the way would cost its digits
    return t.float() if t.device.type == "mps" else t.double()


class Schedule(ABC):
    """The two coefficients of the forward process, and what follows from them.

    Subclasses give `coefficients`, `rates` and `time`. A learned schedule is an `nn.Module` too.
    """

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha(t), sigma(t), in the shape of t."""

    @abstractmethod
    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """d alpha / dt, d sigma / dt, in the shape of t; may be infinite at an end."""

    @abstractmethod
    def time(self, log_snr: Time) -> Tensor:
        """The inverse of `log_snr`, clipped to [0, 1]."""

    def alpha(self, t: Time) -> Tensor:
        return self.coefficients(as_time(t))[0]

    def sigma(self, t: Time) -> Tensor:
        return self.coefficients(as_time(t))[1]

    def log_snr(self, t: Time) -> Tensor:
        alpha, sigma = self.coefficients(as_time(t))
        return 2 * (alpha.log() - sigma.log())

    def log_snr_rate(self, t: Time) -> Tensor:
        """dλ/dt, negative; infinite at the ends of most schedules."""
        alpha, sigma = self.coefficients(as_time(t))
        alpha_rate, sigma_rate = self.rates(t)
        return 2 * (alpha_rate / alpha - sigma_rate / sigma)

    def gauge(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """A norm of (alpha, sigma) that is 1 all along the schedule; here the Euclidean one.

        It says how to rescale the pair when its ratio is changed, so that a shifted schedule
        stays of its kind.
        """
        return (alpha**2 + sigma**2).sqrt()

    @property
    def terminal_snr_is_zero(self) -> bool:
        return bool(self.alpha(1.0) == 0)


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
        # -log alpha = softplus(-λ)/2, then the root of a quadratic in its stable form
        loss = 0.5 * torch.nn.functional.softplus(-as_time(log_snr))
        slope = self.beta_max - self.beta_min
        root = (self.beta_min**2 + 4 * slope * loss).sqrt()
        # the limit of loss → ∞ is ∞, which the quotient would make NaN
        t = torch.where(loss.isinf(), torch.inf, 4 * loss / (self.beta_min + root))
        return t.clamp(0, 1)


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


class Table(Schedule):
    """A discrete process ᾱ[0] > ᾱ[1] > ..., met exactly at t = (k + 1)/T; ᾱ is linear between.

    `variances`, shape (T,): 1 - ᾱ, which keeps its digits where ᾱ is near 1. It must rise
    strictly in (0, 1]; a last entry of 1 is zero terminal SNR.
    """

    def __init__(self, variances: Tensor) -> None:
        variances = torch.as_tensor(variances, dtype=torch.float64)
        bounds = variances.ndim == 1 and len(variances) > 0 and 0 < variances[0]
        if not (bounds and variances[-1] <= 1 and bool((variances.diff() > 0).all())):
            raise ValueError("a table needs variances 1 - ᾱ that rise strictly within (0, 1]")
        self.variances = torch.cat([torch.zeros(1, dtype=torch.float64), variances])
        self.signals = 1 - self.variances
        self.steps = len(variances)

    def _segment(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        position = (t * self.steps).clamp(0, self.steps)
        # t = (k + 1)/T times T may miss a whole number by one rounding
        near = position.round()
        position = torch.where((position - near).abs() < 1e-9 * self.steps, near, position)
        left = position.floor().long().clamp(max=self.steps - 1)
        variances = self.variances.to(t.device)
        return position - left, variances[left], variances[left + 1]

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        part, low, high = self._segment(t)
        return ((1 - part) * (1 - low) + part * (1 - high)).sqrt(), torch.lerp(
            low, high, part
        ).sqrt()

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        alpha, sigma = self.coefficients(t)
        _, low, high = self._segment(t)
        half = 0.5 * (high - low) * self.steps
        return -half / alpha, half / sigma

    def time(self, log_snr: Time) -> Tensor:
        log_snr = as_time(log_snr)
        variance, signal = torch.sigmoid(-log_snr), torch.sigmoid(log_snr)
        variances, signals = self.variances.to(log_snr.device), self.signals.to(log_snr.device)
        right = torch.searchsorted(variances, variance.contiguous()).clamp(1, self.steps)
        span = variances[right] - variances[right - 1]
        early = (variance - variances[right - 1]) / span
        late = 1 - (signal - signals[right]) / span
        return ((right - 1 + torch.where(log_snr > 0, early, late)) / self.steps).clamp(0, 1)


@register("schedule", "table")
def table(
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    steps: int = 1000,
    root: float = 2.0,
    zero_terminal_snr: bool = False,
) -> Table:
    """A discrete table of βs whose roots are equally spaced; the default is Stable Diffusion's.

    `root=1 beta_start=1e-4 beta_end=0.02` is DDPM's linear table (2006.11239). With
    `zero_terminal_snr` alpha is shifted and stretched to end at 0 (2305.08891).
    """
    if not (0 < beta_start <= beta_end < 1 and steps >= 1 and root > 0):
        raise ValueError(
            f"need 0 < beta_start <= beta_end < 1, steps >= 1, root > 0; got {beta_start}, "
            f"{beta_end}, {steps}, {root}"
        )
    ends = (beta_start ** (1 / root), beta_end ** (1 / root))
    betas = torch.linspace(*ends, steps, dtype=torch.float64) ** root
    log_signal = torch.log1p(-betas).cumsum(0)
    if not zero_terminal_snr:
        return Table(-torch.expm1(log_signal))
    if steps < 2:
        raise ValueError("zero_terminal_snr needs at least 2 steps")
    alpha = (0.5 * log_signal).exp()
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return Table(1 - alpha**2)


@register("schedule", "shifted", parts={"base": ("schedule", "flow")})
class Shifted(Schedule):
    """Any schedule with sigma/alpha multiplied by `shift`: λ falls by 2·log(shift).

    Higher resolutions need more noise to hide as much (2301.11093); on `flow` this is the time
    shift t → s·t / (1 + (s - 1)·t) (2403.03206).
    """

    def __init__(self, base: Schedule | None = None, shift: float = 3.0) -> None:
        if shift <= 0:
            raise ValueError(f"the shift must be positive, got {shift}")
        self.base, self.shift = base or RectifiedFlow(), shift

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.base.coefficients(t)
        norm = self.base.gauge(alpha, self.shift * sigma)
        return alpha / norm, self.shift * sigma / norm

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        alpha, sigma = self.base.coefficients(t)
        alpha_rate, sigma_rate = self.base.rates(t)
        point, tangent = (alpha, self.shift * sigma), (alpha_rate, self.shift * sigma_rate)
        norm, norm_rate, *_ = torch.func.jvp(self.base.gauge, point, tangent)
        a, b = self.coefficients(t)
        return (tangent[0] - a * norm_rate) / norm, (tangent[1] - b * norm_rate) / norm

    def time(self, log_snr: Time) -> Tensor:
        return self.base.time(as_time(log_snr) + 2 * math.log(self.shift))

    def gauge(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.base.gauge(alpha, sigma)
