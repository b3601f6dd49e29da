"""A variance of the ancestral step that is learned (2102.09672).

Between the variance of q(x_s | x_t, x0) and that of x_s given x_t for data N(0, 1), which are the
least and the most that it can be for data no wider than that, a network's v says where to go:

    log variance = v·log large + (1 - v)·log small,

number by number. It learns from the divergence of q(x_s | x_t, x0) from the step that is taken,

    ½·(log(variance/small) + (small + c²·(x0 - x̂0)²)/variance - 1),

c the weight of x0 in the step's mean, which this term leaves alone (x̂0 is held fast).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anylatent.core.backbone import Backbone
from anylatent.core.condition import Condition
from anylatent.core.denoiser import Denoiser, Network, Preconditioned, network_input
from anylatent.core.files import UserError
from anylatent.core.latent import Field, Latent, LatentSpec, combine
from anylatent.core.noise import Noise
from anylatent.core.objectives import Objective
from anylatent.core.predictions import Prediction
from anylatent.core.registry import register
from anylatent.core.schedules import Schedule, Time, as_time
from anylatent.core.solvers.ddim import Learned
from anylatent.core.times import LogitNormal, Times


class LearnedVariance(Preconditioned):
    """Preconditioned, by a backbone with twice the channels: of the prediction, and of v."""

    def __init__(
        self,
        backbone: Backbone,
        schedule: Schedule,
        prediction: Prediction,
        data_std: float = 1.0,
    ) -> None:
        super().__init__(backbone, schedule, prediction, data_std)
        self.twice = doubled(backbone.spec)

    def both(self, x: Latent, t: Time, cond: Condition | None) -> tuple[Latent, Latent]:
        """The prediction F, and v; v is ½ at initialisation."""
        scaled, c_noise = network_input(self.schedule, x, as_time(t), self.data_std)
        output: Latent = self.backbone(scaled, c_noise, cond)
        halves: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        for name, value in output.parts.items():
            pair = value.to(x.dtype).chunk(2, 1 + _axis(x.spec.fields[name]))
            for half, found in zip(halves, pair, strict=True):
                half[name] = found
        mean, between = (Latent(half, x.masks, x.spec).project() for half in halves)
        return self.prediction.finish(mean), between.map(lambda v: 0.5 * (1 + v))

    def predict(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        return self.both(x, t, cond)[0]

    def with_variance(
        self, x: Latent, t: Time, cond: Condition | None = None
    ) -> tuple[Latent, Latent]:
        c_skip, c_out = self.prediction.inverse(self.schedule, as_time(t))
        found, between = self.both(x, t, cond)
        return combine((c_skip, x), (c_out, found)), between


def _axis(field: Field) -> int:
    """Of the channels, after the batch axis: the last one where the field names none."""
    return len(field.shape) - 1 if field.channels is None else field.channels


def doubled(spec: LatentSpec) -> LatentSpec:
    """A space with twice the channels; raises UserError where some field is centred."""
    fields = {}
    for name, field in spec.fields.items():
        if field.centred or field.shape[_axis(field)] is None:
            raise UserError(
                f"a variance for each number of {name} in {spec} would leave its subspace: use "
                "denoiser=preconditioned, and variance=small or large in sampling"
            )
        shape = list(field.shape)
        shape[_axis(field)] = 2 * (shape[_axis(field)] or 0)
        fields[name] = replace(field, shape=tuple(shape))
    return LatentSpec(fields)


@register("denoiser", "learned_variance")
def learned_variance(
    network: Network,
    schedule: Schedule,
    prediction: Prediction,
    spec: LatentSpec,
    data_std: float = 1.0,
) -> LearnedVariance:
    """Preconditioned, and a variance for `solver=ddpm solver.variance=learned` (2102.09672)."""
    return LearnedVariance(network(output=doubled(spec)), schedule, prediction, data_std)


@register("objective", "hybrid")
class Hybrid(Objective):
    """‖F - target‖² per degree of freedom, and `weight` times the bound of `steps` equal steps.

    The bound's gradient reaches v alone; see the module. Reference: 2102.09672, eq. 16.
    """

    def __init__(self, times: Times | None = None, weight: float = 1e-3, steps: int = 1000) -> None:
        super().__init__()
        if weight <= 0 or steps < 1:
            raise ValueError(f"need weight > 0 and steps >= 1, got {weight} and {steps}")
        self.times, self.weight, self.steps = times or LogitNormal(), weight, steps

    def forward(
        self, denoiser: Denoiser, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor:
        if not isinstance(denoiser, LearnedVariance):
            raise ValueError("objective=hybrid needs denoiser=learned_variance")
        schedule = denoiser.schedule
        t = self.times.sample(noise, schedule).to(x0.device, non_blocking=True)
        alpha, sigma = schedule.coefficients(t)
        draw = noise.like(x0)
        x = combine((alpha, x0), (sigma, draw))
        found, between = denoiser.both(x, t, cond)
        a, b = denoiser.prediction.target(schedule, t)
        error = found.mse(combine((a, x0), (b, draw)))
        if self.training:
            self.times.observe(t, error.detach(), schedule)
        c_skip, c_out = denoiser.prediction.inverse(schedule, t)
        missed = combine((1.0, x0), (-c_skip, x), (-c_out, found.detach()))
        return error + self.weight * self.steps * self.divergence(schedule, t, missed, between)

    def divergence(self, schedule: Schedule, t: Tensor, missed: Latent, between: Latent) -> Tensor:
        """Of the step from t to t - 1/steps (no further than to t/2), in nats per degree of
        freedom, (B,); `missed` is x0 - x̂0."""
        s = torch.maximum(t - 1 / self.steps, 0.5 * t)
        (step,) = Learned().plan(schedule, torch.stack([t, s]))
        _, c_0, small, wider = step.coefficients
        log_ratio = combine((2 * wider, between))  # of the variance to the smaller one
        error = combine((c_0 / small, missed))
        nats = log_ratio.map(
            lambda r, e: 0.5 * (r + (1 + e**2) * torch.exp(-r) - 1), error
        ).project()
        ones = nats.map(torch.ones_like).project()
        return nats.dot(ones) / nats.dim.clamp(min=1)
