"""How the likelihood of latents is measured: by the probability flow, or by a bound.

Both tell -log p(y) of y = x0 + ρ·noise, ρ = exp(-log_snr/2), in nats; see `likelihood` and `elbo`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from anylatent.core.denoisers import Estimate
from anylatent.core.latents import Latent, Noise
from anylatent.core.likelihood.elbo import elbo
from anylatent.core.likelihood.flow import log_likelihood
from anylatent.core.process import Schedule
from anylatent.core.registry import group, register

LOG_SNR = 8.0
"""Of the latents that are measured, by default: noise of deviation 0.018 beside data of 1."""


@dataclass(frozen=True)
class Measure(ABC):
    """A way to measure; `samples` held-out ones, under the run's guidance where `guided`.

    `log_snr` is that of the latents that are measured: 8 by default, 6 where they are tokens.
    """

    samples: int = 32
    guided: bool = False
    log_snr: float | None = None

    def at(self, log_snr: float) -> Self:
        """The same with a level, if it has none yet."""
        return self if self.log_snr is not None else replace(self, log_snr=log_snr)

    @property
    def rho(self) -> float:
        """The deviation of the noise in the latents that are measured."""
        return math.exp(-self.level / 2)

    @property
    def level(self) -> float:
        return LOG_SNR if self.log_snr is None else self.log_snr

    @abstractmethod
    def nats(
        self, denoise: Estimate, schedule: Schedule, x0: Latent, noise: Noise
    ) -> tuple[Tensor, Latent]:
        """-log p(y), (B,), float64, and y; `denoise` knows x_t and t alone."""


group("likelihood", Measure)


@register("likelihood", "flow")
@dataclass(frozen=True)
class Flow(Measure):
    """-log p(y) by the probability flow and the trace of its Jacobian (2011.13456).

    `steps` of order 5, or with null as many as a sample needs for `tolerance`. The trace is
    estimated without bias from `probes` vectors, or `exact`, at a backward pass per coordinate.
    """

    steps: int | None = 16
    tolerance: float = 1e-4
    probes: int = 1
    exact: bool = False

    def nats(
        self, denoise: Estimate, schedule: Schedule, x0: Latent, noise: Noise
    ) -> tuple[Tensor, Latent]:
        y = x0 + self.rho * noise.like(x0)
        found = log_likelihood(
            denoise,
            schedule,
            y,
            noise=None if self.exact else noise,
            probes=1 if self.exact else self.probes,
            steps=self.steps,
            tolerance=self.tolerance,
            log_snr=self.level,
        )
        return -found.log_p, y


@register("likelihood", "elbo")
@dataclass(frozen=True)
class Elbo(Measure):
    """An upper bound of -log p(y), on average over y: the variational one (2107.00630).

    Unbiased, from `draws` calls of the denoiser per sample.
    """

    draws: int = 32

    def nats(
        self, denoise: Estimate, schedule: Schedule, x0: Latent, noise: Noise
    ) -> tuple[Tensor, Latent]:
        bound = elbo(denoise, schedule, x0, noise, samples=self.draws, high=self.level)
        return bound, x0 + self.rho * noise.like(x0)
