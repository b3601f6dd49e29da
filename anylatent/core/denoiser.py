"""The denoiser: E[x0 | x_t], the one interface that solvers, guidance and every method see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from anylatent.core.backbone import Backbone
from anylatent.core.condition import Condition
from anylatent.core.latent import Latent, combine
from anylatent.core.predictions import Prediction
from anylatent.core.schedules import Schedule, Time, as_time

Denoise: TypeAlias = Callable[[Latent, Time], Latent]
"""x_t, t → x0: all that a solver needs."""

LOG_SNR_LIMIT = 20.0
"""Beyond this |λ| the noise (or the data) is below float32's resolution."""


class Denoiser(nn.Module, ABC):
    """x0 estimated from x_t; t has shape (), (B,) or (B, T)."""

    schedule: Schedule

    @abstractmethod
    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent: ...

    def bind(self, cond: Condition | None) -> Denoise:
        """The denoiser under one condition."""
        return lambda x, t: self(x, t, cond)


class Preconditioned(Denoiser):
    """A backbone made a denoiser: x0 = c_skip·x + c_out·F(c_in·x, c_noise).

    c_in gives the input unit variance for data of deviation `data_std`; c_noise = -λ/4, clipped to
    [-5, 5], is the same for equal noise levels of any two schedules.
    """

    def __init__(
        self,
        backbone: Backbone,
        schedule: Schedule,
        prediction: Prediction,
        data_std: float = 1.0,
    ) -> None:
        super().__init__()
        prediction.check(schedule)
        self.backbone, self.schedule, self.prediction = backbone, schedule, prediction
        self.data_std = data_std

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        c_skip, c_out = self.prediction.inverse(self.schedule, as_time(t))
        return combine((c_skip, x), (c_out, self.predict(x, t, cond)))

    def predict(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        """The backbone's own output F, on the subspace, in the precision of x."""
        t = as_time(t)
        alpha, sigma = self.schedule.coefficients(t)
        c_in = (alpha**2 * self.data_std**2 + sigma**2).rsqrt()
        c_noise = -self.schedule.log_snr(t).clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT) / 4
        c_noise = c_noise.to(x.device, x.dtype)
        c_noise = c_noise.expand(x.batch) if t.ndim == 0 else c_noise
        output: Latent = self.backbone(c_in * x, c_noise, cond)
        return output.to(x.dtype).project()
