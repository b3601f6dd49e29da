"""How much each noise level counts.

A weighting multiplies the error of x0 per degree of freedom. The loss is taken in the space of
the backbone's output, ‖F - target‖² = ‖x̂0 - x0‖² / c_out², so `__call__` returns the weight times
c_out². λ is clipped to ±20, which keeps every weight finite.

The bound's own weight is ½·SNR·|dλ|; with a factor w(λ) that never rises with λ, the weighted loss
is a bound too, on data with noise added (2303.00848): `Bound`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from anylatent.core.denoisers import Preconditioned
from anylatent.core.nn.embedding import FourierFeatures, NoiseEmbedding
from anylatent.core.nn.layers import zero
from anylatent.core.process import Schedule, Times, time_limits
from anylatent.core.registry import group, register


class Weighting(ABC):
    """A weight per sample; subclasses give it for the error of x0."""

    measured: ClassVar[bool] = False
    """Whether the density of times is divided out: times that reach all levels, as uniform and
    low_discrepancy ones, change the loss's variance alone. Normal laws leave out the outermost."""
    invariant: ClassVar[bool] = False
    """Whether the expected loss is an integral over λ, the same for every schedule and law of
    times."""

    @abstractmethod
    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        """The weight of ‖x̂0 - x0‖². `measure` is |dλ/dt| / density(t): with it as a factor, the
        expected loss is an integral over λ, whatever times are sampled."""

    def __call__(self, denoiser: Preconditioned, t: Tensor, times: Times) -> Tensor:
        """The weight of ‖F - target‖², in the shape of t."""
        schedule = denoiser.schedule
        t = t.clamp(*time_limits(schedule))
        measure = -schedule.log_snr_rate(t) / _density(t, times, schedule)
        _, c_out = denoiser.prediction.inverse(schedule, t)
        return self.data(schedule.log_snr(t), measure) * c_out**2

    def loss(self, denoiser: Preconditioned, t: Tensor, times: Times, error: Tensor) -> Tensor:
        """What is minimised, of the errors ‖F - target‖² at times of the same shape: (B,), one for
        each sample, or (B, T), one for each entry. Raises ValueError for two shapes."""
        if t.shape != error.shape:
            raise ValueError(
                f"errors of shape {tuple(error.shape)} at times of shape {tuple(t.shape)}: times "
                "of shape (B, T) need an error for each entry, see `free_mse`"
            )
        return self(denoiser, t, times).to(error) * error


group("weighting", Weighting)


def _density(t: Tensor, times: Times, schedule: Schedule) -> Tensor:
    """That t was drawn from: a given number, even where the schedule learns. Not 0, which it is
    beside a rate of 0."""
    density = times.density(t, schedule).detach()
    return density.clamp(min=torch.finfo(density.dtype).tiny)


@register("weighting", "simple")
class Simple(Weighting):
    """The plain error of the backbone's output (2006.11239)."""

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        raise TypeError("the simple weighting is defined by the prediction, not by the log-SNR")

    def __call__(self, denoiser: Preconditioned, t: Tensor, times: Times) -> Tensor:
        return torch.ones_like(t)


@register("weighting", "uniform")
class Unweighted(Weighting):
    """½·‖noise error‖² under uniform t, from whatever times are drawn: LSGM's un (2106.05931)."""

    measured = True

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        raise TypeError("the uniform weighting is defined by t, not by the log-SNR")

    def __call__(self, denoiser: Preconditioned, t: Tensor, times: Times) -> Tensor:
        schedule = denoiser.schedule
        t = t.clamp(*time_limits(schedule))
        _, c_out = denoiser.prediction.inverse(schedule, t)
        return 0.5 * schedule.log_snr(t).exp() * c_out**2 / _density(t, times, schedule)


class Bound(Weighting):
    """½·w(λ)·SNR·|dλ|, with `share` w that never rises with λ (2303.00848)."""

    measured = True
    invariant = True

    @abstractmethod
    def share(self, log_snr: Tensor) -> Tensor:
        """w(λ), the weight of a noise level against the bound's own."""

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        return 0.5 * self.share(log_snr) * log_snr.exp() * measure


@register("weighting", "elbo")
class ELBO(Bound):
    """The diffusion loss of the variational bound, in nats per dimension: ½·|dSNR| (2107.00630)."""

    def share(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)


@register("weighting", "sigmoid")
class Sigmoid(Bound):
    """The bound's integrand times sigmoid(bias - λ): monotone, hence a bound too (2303.00848).

    With bias 0 it is LSGM's reweighted loss (2106.05931).
    """

    def __init__(self, bias: float = 2.0) -> None:
        self.bias = bias

    def share(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(self.bias - log_snr)


@register("weighting", "exponential")
class Exponential(Bound):
    """The bound's integrand times exp(-λ/2): what flow matching minimises on `flow`, as a bound
    (2303.00848)."""

    def share(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-0.5 * log_snr)


@register("weighting", "monotone_edm")
class MonotoneEDM(Bound):
    """EDM's weight with its law of times, level from its peak towards noise (2303.00848).

    w(λ) ∝ N(λ; -2·mean, (2·std)²)·(e^{-λ} + data_std²), 1 at its peak and for all λ below.
    `mean` and `std` are those of log(sigma/alpha).
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2, data_std: float = 0.5) -> None:
        if std <= 0 or data_std <= 0:
            raise ValueError(f"std and data_std must be positive, got {std} and {data_std}")
        self.mean, self.std, self.data_std = mean, std, data_std
        levels = torch.linspace(-40, 40, 80001, dtype=torch.float64)
        curve = self._log_share(levels)
        self._top, peak = (float(value) for value in curve.max(0))
        self._peak = float(levels[int(peak)])
        if bool((curve[int(peak) :].diff() > 0).any()):
            raise ValueError(f"mean={mean} and std={std} give EDM's weight two peaks: lower std")

    def _log_share(self, log_snr: Tensor) -> Tensor:
        normal = -0.5 * ((log_snr + 2 * self.mean) / (2 * self.std)) ** 2
        floor = log_snr.new_tensor(2 * math.log(self.data_std))
        return normal + torch.logaddexp(-log_snr, floor)

    def share(self, log_snr: Tensor) -> Tensor:
        return torch.exp(self._log_share(log_snr.clamp(min=self._peak)) - self._top)


@register("weighting", "edm")
class EDM(Weighting):
    """(ρ² + s²)/(ρ·s)² with ρ = sigma/alpha: unit weight of EDM's own target (2206.00364)."""

    def __init__(self, data_std: float = 1.0) -> None:
        self.data_std = data_std

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        return log_snr.exp() + 1 / self.data_std**2


@register("weighting", "min_snr")
class MinSNR(Weighting):
    """min(SNR, gamma) (2303.09556)."""

    def __init__(self, gamma: float = 5.0) -> None:
        if gamma <= 0:
            raise ValueError(f"gamma must be positive, got {gamma}")
        self.gamma = gamma

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        return log_snr.exp().clamp(max=self.gamma)


@register("weighting", "p2")
class P2(Weighting):
    """The noise's plain error over (k + SNR)^gamma: less for the finest noise (2204.00227)."""

    def __init__(self, gamma: float = 1.0, k: float = 1.0) -> None:
        if gamma < 0 or k <= 0:
            raise ValueError(f"need gamma >= 0 and k > 0, got {gamma} and {k}")
        self.gamma, self.k = gamma, k

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        return log_snr.exp() / (self.k + log_snr.exp()) ** self.gamma


@register("weighting", "learned", parts={"base": ("weighting", "edm")})
class Uncertainty(Weighting, nn.Module):
    """loss/exp(u(λ)) + u(λ), u a small network trained with the model: EDM2 (2312.02696).

    At its optimum exp(u) is the mean of the base's loss at each level, so that all levels count
    alike. u has `width` units on random Fourier features of -λ/4; it is 0 at first.
    """

    def __init__(self, base: Weighting | None = None, width: int = 64) -> None:
        nn.Module.__init__(self)
        self.base = base or EDM()
        self.embedding = NoiseEmbedding(width, FourierFeatures(width))
        self.last = zero(nn.Linear(width, 1))

    def log_mean(self, log_snr: Tensor) -> Tensor:
        """u(λ), in the shape of λ."""
        with torch.autocast(log_snr.device.type, enabled=False):
            found: Tensor = self.last(nn.functional.silu(self.embedding(-log_snr / 4)))
        return found[..., 0].to(log_snr)

    def data(self, log_snr: Tensor, measure: Tensor) -> Tensor:
        return self.base.data(log_snr, measure) / self.log_mean(log_snr).exp()

    def _levels(self, denoiser: Preconditioned, t: Tensor) -> Tensor:
        schedule = denoiser.schedule
        return self.log_mean(schedule.log_snr(t.clamp(*time_limits(schedule))))

    def __call__(self, denoiser: Preconditioned, t: Tensor, times: Times) -> Tensor:
        return self.base(denoiser, t, times) / self._levels(denoiser, t).exp()

    def loss(self, denoiser: Preconditioned, t: Tensor, times: Times, error: Tensor) -> Tensor:
        u = self._levels(denoiser, t).to(error)
        return self.base.loss(denoiser, t, times, error) / u.exp() + u
