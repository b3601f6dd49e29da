"""Score matching and flow matching: the squared error of a prediction."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from anylatent.core.denoisers import Preconditioned
from anylatent.core.latents import (
    Condition,
    Latent,
    Masking,
    Noise,
    combine,
    free_mse,
    given_map,
    reveal,
)
from anylatent.core.objectives.base import Objective
from anylatent.core.objectives.weightings import Simple, Weighting
from anylatent.core.process import LogitNormal, Schedule, Times
from anylatent.core.registry import register


@register("objective", "denoising", parts={"masking": ("masking", "none")})
class Denoising(Objective):
    """E_t w(t)·‖F(x_t, t) - target‖² per degree of freedom: score matching and flow matching alike.

    Flow matching is this with schedule `flow` and prediction `velocity`. A learned schedule adds
    w·½·SNR(1)·‖x0‖² per degree of freedom, the divergence of x_1 from its prior, which its end is
    trained against; see `schedules.learned`.

    `masking` draws what is given of a sample, which is shown clean and has no part in the loss:
    entries by a time of 0 of their own where latents have entries, all else by a map `given` of
    ones. With `forcing` each entry has a time drawn for itself (diffusion forcing, 2407.01392).
    """

    def __init__(
        self,
        times: Times | None = None,
        weighting: Weighting | None = None,
        masking: Masking | None = None,
        forcing: bool = False,
    ) -> None:
        super().__init__()
        self.times = times or LogitNormal()
        self.weighting = weighting or Simple()
        self.masking = masking if masking is not None and masking.gives else None
        self.forcing = forcing
        told = {
            "times": forcing,
            "given": self.masking is not None and self.masking.by_entry,
            "region": self.masking is not None and not self.masking.by_entry,
        }
        self.tells = frozenset(name for name, told in told.items() if told)
        if self.times.adapts and not self.weighting.measured:
            raise ValueError(
                f"{type(self.times).__name__} times follow the loss, so their density must be "
                f"divided out, which {type(self.weighting).__name__} does not: use weighting=elbo, "
                "sigmoid, monotone_edm or uniform, or times=warped"
            )

    def check(self, schedule: Schedule) -> None:
        if not self.weighting.invariant:
            super().check(schedule)

    def forward(
        self, denoiser: Preconditioned, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor:
        schedule = denoiser.schedule
        entries = x0.entries if self.forcing else None
        t = self.draw_times(x0, noise, schedule, entries)
        a, b = denoiser.prediction.target(schedule, t)
        draw = noise.like(x0)
        given = {} if self.masking is None else self.masking.given(x0, noise)
        output = self._predict(denoiser, x0, draw, t, cond, given)
        error, free = free_mse(output, combine((a, x0), (b, draw)), t, given)
        loss = self.weighting.loss(denoiser, t, self.times, error)
        if self.training:
            self._observe(t, error.detach(), schedule, loss.detach(), free)
        if t.ndim == 2:  # per degree of freedom of the sample, whatever entries have
            loss = (loss * free).sum(1) / free.sum(1).clamp(min=1)
        return loss if schedule.learned is None else loss + self._ending(schedule, x0, loss, given)

    def _predict(
        self,
        denoiser: Preconditioned,
        x0: Latent,
        draw: Latent,
        t: Tensor,
        cond: Condition | None,
        given: Mapping[str, Tensor],
    ) -> Latent:
        """F of x_t in which what is given is clean, and told."""
        denoiser.check_told(self.tells)
        schedule = denoiser.schedule
        if given and denoiser.entry_times and "given" in self.tells:
            known = next(iter(given.values()))
            t = torch.where(known, 0.0, t if t.ndim == 2 else t[:, None])
            given = {}
        alpha, sigma = schedule.coefficients(t)
        x = combine((alpha, x0), (sigma, draw))
        if given:
            x = reveal(x, schedule.alpha(0.0) * x0, given)
            cond = (cond or Condition()).fixed(given=given_map(x, given))
        return denoiser.predict(x, t, cond)

    def _observe(
        self, t: Tensor, error: Tensor, schedule: Schedule, loss: Tensor, free: Tensor
    ) -> None:
        if type(self.times).observe is Times.observe:
            return  # a fixed law; to pick entries a GPU would have to be waited for
        if t.ndim == 2:  # neither padding nor what is given
            counted = free > 0
            t, error, loss = t[counted], error[counted], loss[counted]
        self.times.observe(t, error, schedule, loss)

    def _ending(
        self, schedule: Schedule, x0: Latent, loss: Tensor, given: Mapping[str, Tensor]
    ) -> Tensor:
        """The prior's term, (B,), of a schedule that learns; prepares its backward pass."""
        if schedule.learned is not None:
            schedule.learned.emphasise(2 * loss.detach())
        level = schedule.log_snr(torch.ones((), dtype=torch.float64))
        weight = self.weighting.data(level, torch.ones_like(level))
        size, _ = free_mse(x0, x0.zeros(), loss, given)
        return weight.to(loss) * size.to(loss)
