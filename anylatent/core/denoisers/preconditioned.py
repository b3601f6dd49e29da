"""A backbone made a denoiser by scaling what goes in and what comes out (2206.00364)."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Protocol

from torch import Tensor

from anylatent.core.denoisers.base import Denoiser
from anylatent.core.latents import Codebook, Condition, Latent, LatentSpec, combine, given_map
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


def told_maps(spec: LatentSpec, tells: Set[str]) -> dict[str, int] | None:
    """The maps by which a backbone is told what an objective `tells`: what is given, where no times
    of entries tell it."""
    by_map = "region" in tells or ("given" in tells and not spec.has_entries)
    return {"given": 1} if by_map else None


def _check_told(spec: LatentSpec, tells: Set[str]) -> None:
    if "times" in tells and not spec.has_entries:
        raise ValueError(
            f"{spec} has no entries that could have times of their own: use forcing=false"
        )
    if "given" in tells and all(field.channel_axis == 0 for field in spec.fields.values()):
        raise ValueError(
            f"the first axis of {spec} holds channels and no entries that could be given: choose "
            "other masking.axes, such as [1,2] for the places of (C, H, W)"
        )


class Preconditioned(Denoiser):
    """A backbone made a denoiser: x0 = c_skip·x + c_out·F(c_in·x, c_noise); see `network_input`.

    `data_std` is the deviation of the data. Schedules and predictions that learn are part of it.
    `tells`, of the objective that trains it, says what it is told beside x_t: by times of entries
    if it has "times", or "given" where latents have entries; else, and for a "region", by the map
    `given`, for which the backbone must be built, see `told_maps`.
    """

    def __init__(
        self,
        backbone: Backbone,
        schedule: Schedule,
        prediction: Prediction,
        data_std: float = 1.0,
        tells: Set[str] = frozenset(),
    ) -> None:
        super().__init__()
        _check_told(backbone.spec, tells)
        prediction.check(schedule)
        prediction.attach(backbone.spec)
        self.backbone, self.schedule, self.prediction = backbone, schedule, prediction
        self.data_std, self.tells = data_std, frozenset(tells)

    @property
    def entry_times(self) -> bool:
        return bool(self.tells & {"times", "given"}) and self.backbone.spec.has_entries

    @property
    def sees_given(self) -> bool:
        return told_maps(self.backbone.spec, self.tells) is not None

    def check_told(self, tells: Set[str]) -> None:
        """Raises ValueError where an objective tells what this denoiser was not built for."""
        if not tells <= self.tells:
            raise ValueError(
                f"the objective tells {sorted(tells)}, but this {type(self).__name__} was built "
                f"for {sorted(self.tells) or 'nothing'}: give it tells=objective.tells"
            )

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        c_skip, c_out = self.prediction.inverse(self.schedule, as_time(t))
        return combine((c_skip, x), (c_out, self.predict(x, t, cond)))

    def predict(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        """The prediction F, on the subspace, in the precision of x."""
        output = self.output(x, t, cond)
        return self.prediction.finish(output.to(x.dtype).project())

    def output(self, x: Latent, t: Time, cond: Condition | None) -> Latent:
        """What the backbone makes of x; where nothing is given, its map says so."""
        scaled, c_noise = network_input(self.schedule, x, as_time(t), self.data_std)
        if self.sees_given and (cond is None or "given" not in cond.values):
            cond = (cond or Condition()).fixed(given=given_map(x, {}))
        output: Latent = self.backbone(scaled, c_noise, cond)
        return output


@register("denoiser", "preconditioned")
def preconditioned(
    network: Network,
    schedule: Schedule,
    prediction: Prediction,
    data_std: float = 1.0,
    spec: LatentSpec | None = None,
    tells: Set[str] = frozenset(),
) -> Preconditioned:
    """A backbone that predicts noise, data, velocity, ...: x0 = c_skip·x + c_out·F (2206.00364)."""
    maps = None if spec is None else told_maps(spec, tells)
    return Preconditioned(network(maps=maps), schedule, prediction, data_std, tells)
