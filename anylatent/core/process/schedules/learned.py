"""A log-SNR that is learned by a monotone network (2107.00630).

    λ(t) = high + (low - high)·w(t) for t > 0,

w a network that rises from w(0) = 0 to w(1) = 1. As everywhere sigma(0) = 0 and λ(0) = ∞; the noise
at t → 0, of λ = high = 20, is below the resolution of float32.

The bound is an integral over λ from low to high, the same for every w. So it trains `low` alone,
with the divergence of the last x_t from its prior; w changes the *variance* of its estimate, and is
trained to make that small (appendix I.2 there): for a loss L_i of sample i, the gradient of the
mean of L_i² is that of L_i through w(t_i) times 2·L_i. In the paper the bound trains `high` too,
with the reconstruction of data from there, which latents don't have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anylatent.core.process.schedules.base import Schedule, Time, as_time
from anylatent.core.registry import register

HIGH = 20.0
FIRST = 1e-12
"""The time of all finite λ >= HIGH."""


@register("schedule", "learned")
class Learned(nn.Module, Schedule):
    """λ(t) by a monotone network of `width` units, trained to lower the loss's variance (VDM).

    alpha² + sigma² = 1. `low` is the first value of λ(1), which the bound trains. Use with
    weighting=elbo or another whose expected loss is an integral over λ (2107.00630).
    """

    def __init__(self, low: float = -10.0, width: int = 32) -> None:
        super().__init__()
        if not low < HIGH or width < 1:
            raise ValueError(f"need low < {HIGH:g} and width >= 1, got {low} and {width}")
        self.first, self.width = low, width
        # deviations from an even rise, to which weight decay leads back
        self.end = nn.Parameter(torch.zeros(()))
        self.gain = nn.Parameter(torch.zeros(width))
        self.slope = nn.Parameter(torch.zeros(width))
        self.place = nn.Parameter(torch.zeros(width))
        self.emphasis: Tensor | None = None

    @property
    def learned(self) -> Learned:
        return self

    def emphasise(self, factor: Tensor) -> None:
        """Sets the factors (B,) of the next backward pass' gradients through w at times (B,)."""
        self.emphasis = factor

    def _followed(self, value: Tensor) -> Tensor:
        """The value itself, whose gradient will be emphasised."""
        if value.requires_grad:
            value.register_hook(self._emphasised)  # type: ignore[no-untyped-call]
        return value

    def _emphasised(self, gradient: Tensor) -> Tensor:
        factor = self.emphasis
        if factor is None or gradient.shape[:1] != factor.shape:
            return gradient
        return gradient * factor.to(gradient).reshape(-1, *(1,) * (gradient.ndim - 1))

    def _units(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gains, slopes and places of the units, (width,) in the precision of t."""
        gain, slope, place = (
            value.to(t.device, t.dtype) for value in (self.gain, self.slope, self.place)
        )
        even = (torch.arange(self.width, device=t.device, dtype=t.dtype) + 0.5) / self.width
        return 0.1 / self.width * gain.exp(), 2 * self.width * slope.exp(), even + place

    def _height(self, t: Tensor) -> Tensor:
        """t + Σ gain·(S(slope·(t - place)) - S(-slope·place)), S the logistic function."""
        gain, slope, place = self._units(t)
        t = t[..., None]
        grown = -torch.expm1(-slope * t)  # S(a) - S(b) = S(a)·S(-b)·(1 - e^{b - a})
        units = torch.sigmoid(slope * (t - place)) * torch.sigmoid(slope * place) * grown
        return t[..., 0] + (gain * units).sum(-1)

    def _steepness(self, t: Tensor) -> Tensor:
        """d height / dt."""
        gain, slope, place = self._units(t)
        at = slope * (t[..., None] - place)
        return 1 + (gain * slope * torch.sigmoid(at) * torch.sigmoid(-at)).sum(-1)

    def _rise(self, t: Tensor) -> Tensor:
        """w(t)."""
        return self._followed(self._height(t) / self._height(t.new_ones(())))

    def _span(self, t: Tensor) -> Tensor:
        """high - low, positive, shape ()."""
        return HIGH - self.first - self.end.to(t.device, t.dtype)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_snr = HIGH - self._span(t) * self._rise(t)
        sigma = torch.sigmoid(-log_snr).sqrt()
        noisy = t > 0
        alpha = torch.sigmoid(log_snr).sqrt()
        return torch.where(noisy, alpha, 1.0), torch.where(noisy, sigma, 0.0)

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        alpha, sigma = self.coefficients(t)
        slope = self._followed(self._steepness(t) / self._height(t.new_ones(())))
        half = 0.5 * self._span(t) * slope * alpha * sigma
        return -half * sigma, half * alpha

    @torch.no_grad()
    def time(self, log_snr: Time) -> Tensor:
        log_snr = as_time(log_snr)
        rise = (HIGH - log_snr) / self._span(log_snr)
        inner = self._inverse(rise.clamp(0, 1) * self._height(rise.new_ones(()))).clamp(min=FIRST)
        return torch.where(log_snr.isposinf(), 0.0, torch.where(rise >= 1, 1.0, inner))

    def _inverse(self, height: Tensor) -> Tensor:
        """Where the network has this height: Newton's steps within a bracket, chords where they
        leave it, after some bisection."""
        low, high = torch.zeros_like(height), torch.ones_like(height)
        below, above = -height, self._height(high) - height
        t = torch.full_like(height, 0.5)
        for turn in range(24):
            gap = self._height(t) - height
            left = gap <= 0
            low, below = torch.where(left, t, low), torch.where(left, gap, below)
            high, above = torch.where(left, high, t), torch.where(left, above, gap)
            newton = t - gap / self._steepness(t)
            chord = low + (high - low) * (below / (below - above).clamp(max=-1e-300)).clamp(0, 1)
            inside = (newton >= low) & (newton <= high)
            t = 0.5 * (low + high) if turn < 10 else torch.where(inside, newton, chord)
        return t
