"""One diffusion model as a generator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser, Preconditioned, ScoreInterpolation
from anylatent.core.generators.base import TOKENS, Generator
from anylatent.core.generators.sampler import Guidance, Sampler
from anylatent.core.latents import Codebook, Condition, Latent, Noise, Posterior
from anylatent.core.likelihood import Measure, rounding
from anylatent.core.objectives import Objective
from anylatent.core.process import Schedule, Times
from anylatent.core.registry import register
from anylatent.core.solvers import Callback, invert, solve

Trained = Preconditioned | ScoreInterpolation


@register("generator", "diffusion")
class Diffusion(Generator):
    """One diffusion model: a denoiser trained by an objective."""

    def __init__(self, denoiser: Trained, objective: Objective) -> None:
        super().__init__()
        objective.check(denoiser.schedule)
        self.denoiser, self.objective = denoiser, objective
        self.spec, self.masking = denoiser.backbone.spec, objective.masking

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def denoisers(self) -> Mapping[str, Denoiser]:
        return {"": self.denoiser}

    @property
    def times(self) -> Times:
        return self.objective.times

    def accepts(self, sampler: Sampler) -> None:
        sampler.around(self.denoiser, Noise([0]))
        if sampler.solver.asks_variance:
            self.denoiser.check_variance()
        sampler.grid(self.schedule, sampler.steps)

    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        loss: Tensor = self.objective(self.denoiser, x0, cond, noise)
        return loss

    @torch.no_grad()
    def sample(
        self,
        blank: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        schedule, denoiser = self.schedule, sampler.around(self.denoiser, noise)
        if sampler.start is None:
            times = sampler.grid(schedule, sampler.steps)
            start = schedule.sigma(times[0]) * noise.like(blank)
        else:
            times = sampler.start.times(sampler.grid, schedule, sampler.steps)
            start = sampler.start.state(schedule, noise)
        return solve(sampler.solver, denoiser.bind(cond), schedule, start, times, noise, callback)

    @torch.no_grad()
    def invert(
        self,
        x0: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        schedule, denoiser = self.schedule, sampler.around(self.denoiser, noise)
        times = sampler.grid(schedule, sampler.steps)
        x = schedule.alpha(times[-1]) * x0
        top = invert(sampler.solver, denoiser.bind(cond), schedule, x, times, callback)
        return top / schedule.sigma(times[0])

    def nats(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        measure: Measure,
        guidance: Guidance | None = None,
    ) -> tuple[Tensor, Latent]:
        denoiser = self.denoiser if guidance is None else guidance(self.denoiser, noise.apart())
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
