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

from torch import Tensor

from anylatent.core.denoisers.preconditioned import Network, Preconditioned, network_input
from anylatent.core.latents import Condition, Field, Latent, LatentSpec, combine
from anylatent.core.nn.backbone import Backbone
from anylatent.core.process import Prediction, Schedule, Time, as_time
from anylatent.core.registry import register
from anylatent.core.support.files import UserError


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

    def variance(self, x: Latent, t: Time, cond: Condition | None = None) -> tuple[Latent, Latent]:
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
