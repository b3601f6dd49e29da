"""What a backbone predicts: F = a·x0 + b·noise, and the one 2×2 system that gives x0 back.

With x_t = alpha·x0 + sigma·noise,

    x0 = c_skip·x_t + c_out·F,   c_skip = b/det, c_out = -sigma/det, det = alpha·b - sigma·a,

for every kind of prediction. Where sigma = 0, x0 = x_t/alpha whatever the kind. F is what the
backbone returns, or what the prediction makes of it (`finish`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from anylatent.core.latents import Field, Latent, LatentSpec
from anylatent.core.process.schedules import Schedule, Time, as_time
from anylatent.core.registry import get, group, register


class Prediction(ABC):
    """A linear target; subclasses give its two coefficients."""

    @abstractmethod
    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        """a, b of F = a·x0 + b·noise, in the shape of t."""

    def inverse(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        """c_skip, c_out of x0 = c_skip·x_t + c_out·F, in the shape of t."""
        alpha, sigma = schedule.coefficients(as_time(t))
        a, b = self.target(schedule, t)
        det = alpha * b - sigma * a
        clean = sigma == 0
        c_skip = torch.where(clean, 1 / alpha, b / det)
        return c_skip, torch.where(clean, 0.0, -sigma / det)

    def finish(self, output: Latent) -> Latent:
        """F from what the backbone returns: that itself, but for predictions that learn."""
        return output

    def attach(self, spec: LatentSpec) -> None:
        """Told, before anything else, on which latents it works; matters where it learns."""
        return None

    def check(self, schedule: Schedule) -> None:
        """Raises ValueError where it does not determine x0 from pure noise, at t = 1, or where its
        target is infinite there; says what would work."""
        problem = self._problem(schedule)
        if problem is None:
            return
        works = [name for name in SAFE if get("prediction", name)()._problem(schedule) is None]
        raise ValueError(
            f"{type(self).__name__} on {type(schedule).__name__} has no meaning at t = 1: {problem}"
            f". Use prediction={', '.join(works)}, or another schedule: vp, edm and table, whose "
            "terminal SNR is not zero, take every prediction"
        )

    def _problem(self, schedule: Schedule) -> str | None:
        if not _finite(self.target(schedule, 1.0)):
            return "this target is infinite there"
        if not _finite(self.inverse(schedule, 1.0)):
            zero = schedule.terminal_snr_is_zero
            why = "the schedule ends at zero signal-to-noise ratio, where" if zero else "there"
            return f"{why} this target says nothing of the data"
        return None


group("prediction", Prediction)


SAFE = ("v", "data", "edm", "velocity")
"""What `check` suggests, as far as it works."""


def _finite(pair: tuple[Tensor, Tensor]) -> bool:
    return all(bool(torch.isfinite(value)) for value in pair)


@register("prediction", "data")
class DataPrediction(Prediction):
    """F = x0."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        return torch.ones_like(t), torch.zeros_like(t)


@register("prediction", "noise")
class NoisePrediction(Prediction):
    """F = noise (2006.11239). Undefined at zero terminal SNR."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        return torch.zeros_like(t), torch.ones_like(t)


@register("prediction", "v")
class VPrediction(Prediction):
    """F = alpha·noise - sigma·x0 (2202.00512)."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.coefficients(as_time(t))
        return -sigma, alpha


@register("prediction", "score")
class ScorePrediction(Prediction):
    """F = -noise/sigma, the score of the perturbed data (2011.13456). Undefined at zero SNR."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        sigma = schedule.sigma(t)
        return torch.zeros_like(sigma), -1 / sigma


@register("prediction", "velocity")
class VelocityPrediction(Prediction):
    """F = dx_t/dt at fixed x0 and noise; noise - x0 on `flow` (2210.02747)."""

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        return schedule.rates(t)


@register("prediction", "edm")
class EDMPrediction(Prediction):
    """EDM's preconditioning for data of deviation `data_std`, on any schedule (2206.00364).

    c_skip = alpha·s²/v and c_out = sigma·s/√v with v = alpha²·s² + sigma², so that the target has
    unit variance at every t and errors of F are amplified least.
    """

    def __init__(self, data_std: float = 1.0) -> None:
        if data_std <= 0:
            raise ValueError(f"data_std must be positive, got {data_std}")
        self.data_std = data_std

    def target(self, schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.coefficients(as_time(t))
        root = (alpha**2 * self.data_std**2 + sigma**2).sqrt()
        return sigma / (self.data_std * root), -alpha * self.data_std / root


@register("prediction", "mixed")
class MixedScore(nn.Module, EDMPrediction):
    """LSGM's mixed score: the Normal prior's and the network's, by learned shares (2106.05931).

    (1 - m)·s_N + m·s, where s_N is the score of x_t for data N(0, data_std²) and the network's
    score s = s_N + alpha·data_std/(sigma·√v)·F is that of `edm`: so x0 = c_skip·x_t + c_out·m·F,
    and a network of zeros gives the Normal prior exactly. m = sigmoid(`logit`), one per channel
    where a field names them, else one per field; `logit` is their first value.
    """

    def __init__(self, data_std: float = 1.0, logit: float = -3.0) -> None:
        nn.Module.__init__(self)
        EDMPrediction.__init__(self, data_std)
        self.logit = logit
        self.logits = nn.ParameterDict()

    def attach(self, spec: LatentSpec) -> None:
        # deviations from the first value, to which weight decay leads back
        self.logits = nn.ParameterDict(
            {name: torch.zeros(_channels(field)) for name, field in spec.fields.items()}
        )

    def finish(self, output: Latent) -> Latent:
        mixed = {
            name: torch.sigmoid(self.logit + self.logits[name]).to(x) * x
            for name, x in output.parts.items()
        }
        return Latent(mixed, output.masks, output.spec)


def _channels(field: Field) -> tuple[int, ...]:
    """The shape of one number per channel, which a tensor (B, *field.shape) is multiplied by."""
    if field.channels is None or field.centred:
        return ()
    rest = len(field.shape) - field.channels - 1
    return (int(field.shape[field.channels] or 0), *(1,) * rest)
