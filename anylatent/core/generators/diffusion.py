"""One diffusion model as a generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser, Preconditioned, ScoreInterpolation, other_temperature
from anylatent.core.generators.base import TOKENS, Callback, Generator, Guidance
from anylatent.core.latents import Codebook, Condition, Latent, Noise, Posterior
from anylatent.core.likelihood import Measure, rounding
from anylatent.core.objectives import Objective
from anylatent.core.process import Grid, Times
from anylatent.core.registry import register
from anylatent.core.solvers import Solver, invert, solve

Trained = Preconditioned | ScoreInterpolation


@register("generator", "diffusion")
class Diffusion(Generator):
    """One diffusion model: a denoiser trained by an objective."""

    def __init__(self, denoiser: Trained, objective: Objective) -> None:
        super().__init__()
        objective.check(denoiser.schedule)
        self.denoiser, self.objective = denoiser, objective
        self.spec = denoiser.backbone.spec

    @property
    def times(self) -> Times:
        return self.objective.times

    @contextmanager
    def tempered(self, temperature: float | None) -> Iterator[None]:
        if temperature is None or not isinstance(self.denoiser, ScoreInterpolation):
            with super().tempered(temperature):
                yield
        else:
            with other_temperature(self.denoiser, temperature):
                yield

    def _guided(self, guidance: Guidance | None) -> Denoiser | ScoreInterpolation:
        return self.denoiser if guidance is None else guidance(self.denoiser)

    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        loss: Tensor = self.objective(self.denoiser, x0, cond, noise)
        return loss

    @torch.no_grad()
    def sample(
        self,
        blank: Latent,
        cond: Condition | None,
        solver: Solver,
        grid: Grid,
        steps: int,
        guidance: Guidance | None,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        schedule = self.denoiser.schedule
        denoiser = self._guided(guidance)
        times = grid(schedule, steps)
        start = schedule.sigma(times[0]) * noise.like(blank)
        return solve(solver, denoiser.bind(cond), schedule, start, times, noise, callback)

    @torch.no_grad()
    def invert(
        self,
        x0: Latent,
        cond: Condition | None,
        solver: Solver,
        grid: Grid,
        steps: int,
        guidance: Guidance | None,
        callback: Callback | None = None,
    ) -> Latent:
        schedule = self.denoiser.schedule
        denoiser = self._guided(guidance)
        times = grid(schedule, steps)
        x = schedule.alpha(times[-1]) * x0
        top = invert(solver, denoiser.bind(cond), schedule, x, times, callback)
        return top / schedule.sigma(times[0])

    def nats(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        measure: Measure,
        guidance: Guidance | None = None,
    ) -> tuple[Tensor, Latent]:
        denoiser = self._guided(guidance)
        free = lambda x, t: denoiser(x, t, cond)  # noqa: E731 - it recalls no estimates
        return measure.nats(free, denoiser.schedule, x0, noise)

    def bound(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        codebook: Codebook,
        measure: Measure = TOKENS,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """See `data_likelihood`: q is x0 with noise, tokens are read from y by Bayes' rule."""
        nats, y = self.nats(x0, cond, noise, measure, guidance)
        read = rounding(codebook.vectors(), codebook.tokens(x0), x0.masks.get(codebook.name))
        return nats - Posterior(x0).entropy(measure.rho) + read(y, measure.rho)
