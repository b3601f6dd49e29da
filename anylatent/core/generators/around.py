"""Generators around a generator, with whose weights they draw in another way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anylatent.core.denoisers import Denoiser
from anylatent.core.generators.base import TOKENS, Generator
from anylatent.core.generators.sampler import Guidance, Sampler
from anylatent.core.latents import Codebook, Condition, Latent, LatentSpec, Noise
from anylatent.core.likelihood import Measure
from anylatent.core.modality import Modality
from anylatent.core.process import Schedule, Times
from anylatent.core.solvers import Callback


def steps_of(generator: Generator, blank: Latent, steps: int) -> int:
    """How many steps a sampler of so many takes to make samples of these sizes: how often a
    callback is called."""
    if isinstance(generator, Around):
        return generator.steps(blank, steps)
    return len(generator.members) * steps


class Around(Generator):
    """Another generator, `inner`, but for how it is sampled: it learns, is measured and inverted as
    that is."""

    def __init__(self, inner: Generator) -> None:
        super().__init__()
        self.inner, self.spec, self.masking = inner, inner.spec, inner.masking
        self.draws_sizes, self.slopes = inner.draws_sizes, inner.slopes
        self.origins = {f"inner.{name}": path for name, path in inner.origins.items()}

    @property
    def schedule(self) -> Schedule | None:
        return self.inner.schedule

    @property
    def times(self) -> Times | None:
        return self.inner.times

    @property
    def members(self) -> Mapping[str, Generator]:
        return self.inner.members

    @property
    def denoisers(self) -> Mapping[str, Denoiser]:
        return self.inner.denoisers

    def steps(self, blank: Latent, steps: int) -> int:
        """See `steps_of`."""
        return steps_of(self.inner, blank, steps)

    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        return self.inner.loss(x0, cond, noise)

    def loss_of(self, member: str, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        return self.inner.loss_of(member, x0, cond, noise)

    def accepts(self, sampler: Sampler) -> None:
        self.inner.accepts(sampler)

    def blank(
        self, modality: Modality, spec: LatentSpec, noise: Noise, columns: Mapping[str, Any]
    ) -> Latent:
        return self.inner.blank(modality, spec, noise, columns)

    def invert(
        self,
        x0: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        return self.inner.invert(x0, cond, sampler, noise, callback)

    def nats(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        measure: Measure,
        guidance: Guidance | None = None,
    ) -> tuple[Tensor, Latent]:
        return self.inner.nats(x0, cond, noise, measure, guidance)

    def bound(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        codebook: Codebook,
        measure: Measure = TOKENS,
        guidance: Guidance | None = None,
    ) -> Tensor:
        return self.inner.bound(x0, cond, noise, codebook, measure, guidance)
