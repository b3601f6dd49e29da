"""Generators: models of a latent's law, trained by a loss and sampled by a solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from anylatent.core.condition import Condition
from anylatent.core.denoiser import Denoiser, Preconditioned
from anylatent.core.grids import Grid
from anylatent.core.latent import Latent, LatentSpec
from anylatent.core.likelihood import log_likelihood
from anylatent.core.noise import Noise
from anylatent.core.objectives import Objective
from anylatent.core.registry import register
from anylatent.core.solvers import Solver, solve

Guidance = Callable[[Denoiser], Denoiser]
Callback = Callable[[int, Tensor, Latent], None]


class Generator(nn.Module, ABC):
    """p(x0 | cond) on the space of `spec`."""

    spec: LatentSpec

    @abstractmethod
    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        """The training loss per sample, shape (B,)."""

    @abstractmethod
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
        """One sample for each of `blank`, which gives sizes, dtype and device."""

    @abstractmethod
    def log_likelihood(
        self, x0: Latent, cond: Condition | None, noise: Noise, steps: int, log_snr: float
    ) -> Tensor:
        """log p(x0 | cond) in nats, shape (B,), at the noise level `log_snr`; see `likelihood`."""


@register("generator", "diffusion")
class Diffusion(Generator):
    """One diffusion model: a denoiser trained by an objective."""

    def __init__(self, denoiser: Preconditioned, objective: Objective) -> None:
        super().__init__()
        self.denoiser, self.objective = denoiser, objective
        self.spec = denoiser.backbone.spec

    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        return self.objective(self.denoiser, x0, cond, noise)

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
        denoiser = self.denoiser if guidance is None else guidance(self.denoiser)
        times = grid(schedule, steps)
        start = schedule.sigma(times[0]) * noise.like(blank)
        return solve(solver, denoiser.bind(cond), schedule, start, times, noise, callback)

    def log_likelihood(
        self, x0: Latent, cond: Condition | None, noise: Noise, steps: int, log_snr: float
    ) -> Tensor:
        bound, schedule = self.denoiser.bind(cond), self.denoiser.schedule
        return log_likelihood(bound, schedule, x0, noise=noise, steps=steps, log_snr=log_snr).log_p


class Cascade(Generator):
    """p(a)·p(b | a)·...: each stage models some fields, given the condition and all before it.

    Stage i's spec holds the fields that it models. It receives those of the earlier stages as
    conditions of the same names, whose values are latents.
    """

    def __init__(self, stages: Sequence[Generator]) -> None:
        super().__init__()
        if not stages:
            raise ValueError("a cascade needs at least one stage")
        fields = [(n, f) for stage in stages for n, f in stage.spec.fields.items()]
        if len(dict(fields)) < len(fields):
            raise ValueError(f"two stages model one field: {[name for name, _ in fields]}")
        self.stages = list(stages)
        self.networks = nn.ModuleList(stages)
        self.spec = LatentSpec(dict(fields))

    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        known, losses = cond or Condition(), []
        for stage in self.stages:
            part = x0.take(stage.spec.fields)
            losses.append(stage.loss(part, known, noise))
            known = _given(known, part)
        return torch.stack(losses).sum(0)

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
        known, parts = cond or Condition(), {}
        for stage in self.stages:
            start = blank.take(stage.spec.fields)
            part = stage.sample(start, known, solver, grid, steps, guidance, noise, callback)
            known = _given(known, part)
            parts.update(part.parts)
        return Latent({name: parts[name] for name in blank.parts}, blank.masks, blank.spec)

    def log_likelihood(
        self, x0: Latent, cond: Condition | None, noise: Noise, steps: int, log_snr: float
    ) -> Tensor:
        known, totals = cond or Condition(), []
        for stage in self.stages:
            part = x0.take(stage.spec.fields)
            totals.append(stage.log_likelihood(part, known, noise, steps, log_snr))
            known = _given(known, part)
        return torch.stack(totals).sum(0)


def _given(cond: Condition, part: Latent) -> Condition:
    return cond.with_(**{name: part.take([name]) for name in part.parts})
