"""Generators: models of a latent's law, trained by a loss and sampled by a solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from anylatent.core.autoencoder import Posterior
from anylatent.core.codebook import Codebook
from anylatent.core.condition import Condition
from anylatent.core.denoiser import Denoiser, Preconditioned
from anylatent.core.elbo import rounding
from anylatent.core.files import UserError
from anylatent.core.grids import Grid
from anylatent.core.latent import Latent, LatentSpec
from anylatent.core.measures import Elbo, Measure
from anylatent.core.noise import Noise
from anylatent.core.objectives import Objective
from anylatent.core.registry import register
from anylatent.core.score_interpolation import ScoreInterpolation, other_temperature
from anylatent.core.solvers import Solver, invert, solve
from anylatent.core.times import Times

Trained = Preconditioned | ScoreInterpolation
Guidance = Callable[[Denoiser], Denoiser]
READABLE = 6.0
"""The log-SNR at which tokens are read: noise of deviation .05 beside vectors of unit variance."""
TOKENS: Measure = Elbo(log_snr=READABLE)
Callback = Callable[[int, Tensor, Latent], None]


class Generator(nn.Module, ABC):
    """p(x0 | cond) on the space of `spec`.

    With `ends` it decides itself where a sample ends: what it returns has masks of its own, and
    the lengths of `blank` are the most that it may use. `times` is the law of the noise levels
    that it was trained at, if it has one.
    """

    spec: LatentSpec
    ends: bool = False

    @property
    def times(self) -> Times | None:
        return None

    @abstractmethod
    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        """The training loss per sample, shape (B,)."""

    @contextmanager
    def tempered(self, temperature: float | None) -> Iterator[None]:
        """The logits of tokens divided by this number for the length of a block; None changes
        nothing. Below 1, samples are likelier and more alike."""
        if temperature is not None:
            raise UserError(
                f"temperature={temperature}: {type(self).__name__} of {self.spec} has no logits of "
                "tokens; leave it out"
            )
        yield

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
        """The noise, standard normal where the model is perfect, from which `sample` with the same
        settings leads back to x0. Raises ValueError for a solver that draws noise."""
        raise UserError(
            f"{type(self).__name__} of {self.spec} makes no sample from noise: there is nothing to "
            "invert"
        )

    @abstractmethod
    def nats(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        measure: Measure,
        guidance: Guidance | None = None,
    ) -> tuple[Tensor, Latent]:
        """-log p(y | cond) in nats, shape (B,), and y, x0 with the noise of the measure."""

    def bound(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        codebook: Codebook,
        measure: Measure = TOKENS,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """An upper bound of -log p(tokens | cond) in nats, (B,), for x0 of the codebook."""
        raise UserError(f"{type(self).__name__} of {self.spec} has no bound for tokens")


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
        return _whole(parts, blank)

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
        known, parts = cond or Condition(), {}
        for stage in self.stages:
            part = x0.take(stage.spec.fields)
            found = stage.invert(part, known, solver, grid, steps, guidance, callback)
            known = _given(known, part)
            parts.update(found.parts)
        return _whole(parts, x0)

    def nats(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        measure: Measure,
        guidance: Guidance | None = None,
    ) -> tuple[Tensor, Latent]:
        known, totals, parts = cond or Condition(), [], {}
        for stage in self.stages:
            part = x0.take(stage.spec.fields)
            nats, y = stage.nats(part, known, noise, measure, guidance)
            totals.append(nats)
            known = _given(known, y)
            parts.update(y.parts)
        whole = _whole(parts, x0)
        return torch.stack(totals).sum(0), whole


def _given(cond: Condition, part: Latent) -> Condition:
    return cond.with_(**{name: part.take([name]) for name in part.parts})


def _whole(parts: Mapping[str, Tensor], like: Latent) -> Latent:
    """The fields of all stages in the order of the latent that they are parts of."""
    return Latent({name: parts[name] for name in like.parts}, like.masks, like.spec)
