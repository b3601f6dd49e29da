"""A backbone made a denoiser by scaling what goes in and what comes out (2206.00364)."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Protocol

from torch import Tensor

from anylatent.core.denoisers.base import Denoiser
from anylatent.core.latents import Codebook, Condition, Latent, LatentSpec, combine
from anylatent.core.nn.backbone import Backbone
from anylatent.core.process import LOG_SNR_LIMIT, Prediction, Schedule, Time, as_time
from anylatent.core.registry import group, register


class Network(Protocol):
    """Makes the backbone of a configuration, for what a denoiser wants of it."""

    def __call__(
        self, output: LatentSpec | None = None, maps: Mapping[str, int] | None = None
    ) -> Backbone:
        """`output`: the spec of what it returns, if not that of its input; `maps`: channels that
        are laid over those of the input, by name."""


group(
    "denoiser",
    Denoiser,
    offers={
        "network": Network,
        "schedule": Schedule,
        "prediction": Prediction,
        "spec": LatentSpec,
        "codebook": Codebook | None,
        "tells": Set[str],
    },
)


def network_input(schedule: Schedule, x: Latent, t: Tensor, std: float) -> tuple[Latent, Tensor]:
    """c_in·x, of unit variance for data of deviation `std`, and c_noise of shape (B,) or (B, T).

    c_noise = -λ/4, clipped to [-5, 5], is the same for equal noise levels of any two schedules.
    """
    alpha, sigma = schedule.coefficients(t)
    c_noise = -schedule.log_snr(t).clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT) / 4
    c_noise = c_noise.to(x.device, x.dtype)
    c_in = (alpha**2 * std**2 + sigma**2).rsqrt()
    return c_in * x, c_noise.expand(x.batch) if t.ndim == 0 else c_noise


class Preconditioned(Denoiser):
    """A backbone made a denoiser: x0 = c_skip·x + c_out·F(c_in·x, c_noise); see `network_input`.

    `data_std` is the deviation of the data. Schedules and predictions that learn are part of it.
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
        prediction.attach(backbone.spec)
        self.backbone, self.schedule, self.prediction = backbone, schedule, prediction
        self.data_std = data_std

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        c_skip, c_out = self.prediction.inverse(self.schedule, as_time(t))
        return combine((c_skip, x), (c_out, self.predict(x, t, cond)))

    def predict(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        """The prediction F, on the subspace, in the precision of x."""
        scaled, c_noise = network_input(self.schedule, x, as_time(t), self.data_std)
        output: Latent = self.backbone(scaled, c_noise, cond)
        return self.prediction.finish(output.to(x.dtype).project())


@register("denoiser", "preconditioned")
def preconditioned(
    network: Network, schedule: Schedule, prediction: Prediction, data_std: float = 1.0
) -> Preconditioned:
    """A backbone that predicts noise, data, velocity, ...: x0 = c_skip·x + c_out·F (2206.00364)."""
    return Preconditioned(network(), schedule, prediction, data_std)
