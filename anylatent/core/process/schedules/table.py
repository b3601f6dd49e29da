"""Discrete processes, met exactly at their own points."""

from __future__ import annotations

import torch
from torch import Tensor

from anylatent.core.process.schedules.base import VarianceCurve
from anylatent.core.registry import register


class Table(VarianceCurve):
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
        close = ((position - near).abs() < 1e-9 * self.steps) & (near > 0)  # 0 is met exactly
        position = torch.where(close, near, position)
        left = position.nan_to_num().floor().long().clamp(max=self.steps - 1)
        variances = self.variances.to(t.device)
        return position - left, variances[left], variances[left + 1]

    def squares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        part, low, high = self._segment(t)
        return (1 - part) * (1 - low) + part * (1 - high), torch.lerp(low, high, part)

    def variance_rate(self, t: Tensor) -> Tensor:
        _, low, high = self._segment(t)
        return (high - low) * self.steps

    def early(self, variance: Tensor) -> Tensor:
        right, span, variances = self._cell(variance)
        return (right - 1 + (variance - variances[right - 1]) / span) / self.steps

    def late(self, signal: Tensor) -> Tensor:
        right, span, _ = self._cell(1 - signal)
        signals = self.signals.to(signal.device)
        return (right - (signal - signals[right]) / span) / self.steps

    def _cell(self, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The right end and the height of each variance's segment, and all ends."""
        variances = self.variances.to(variance.device)
        right = torch.searchsorted(variances, variance.contiguous()).clamp(1, self.steps)
        return right, variances[right] - variances[right - 1], variances


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
