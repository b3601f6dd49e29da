"""Generators: models of a latent's law, trained by a loss and sampled by a solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from anylatent.core.denoisers import Denoiser
from anylatent.core.generators.sampler import Guidance, Sampler
from anylatent.core.latents import (
    Codebook,
    Condition,
    ConditionSpec,
    Latent,
    LatentSpec,
    Masking,
    Noise,
)
from anylatent.core.likelihood import Elbo, Measure
from anylatent.core.modality import Modality
from anylatent.core.objectives import Objective
from anylatent.core.process import Schedule, Times
from anylatent.core.registry import Maker, group
from anylatent.core.solvers import Callback
from anylatent.core.support.files import UserError

READABLE = 6.0
"""The log-SNR at which tokens are read: noise of deviation .05 beside vectors of unit variance."""

TOKENS: Measure = Elbo(log_snr=READABLE)


class Generator(nn.Module, ABC):
    """p(x0 | cond) on the space of `spec`.

    `draws_sizes`: it decides itself where a sample ends, so that what it returns has masks of its
    own. `slopes`: its loss has a slope in x0, which an autoencoder that learns with it follows.
    `masking` draws what is given of samples that it is trained to complete, None where nothing is.
    `origins`: paths of the models that parts of it start from, by the names of these modules in it.
    """

    spec: LatentSpec
    masking: Masking | None = None
    origins: Mapping[str, str] = MappingProxyType({})
    draws_sizes: bool = False
    slopes: bool = True

    @property
    def schedule(self) -> Schedule | None:
        """Of the noise that its samples come from; None where they come from none."""
        return None

    @property
    def times(self) -> Times | None:
        """The law of the noise levels that it was trained at, if it has one."""
        return None

    @property
    def members(self) -> Mapping[str, Generator]:
        """The generators that make a sample one after the other, each with all the steps of its
        sampler, and that can learn so, by name; itself as "" where it is one."""
        return {"": self}

    @property
    def denoisers(self) -> Mapping[str, Denoiser]:
        """What its solutions solve, by stage, "" where there are none; none where it solves
        nothing."""
        return {}

    @abstractmethod
    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        """The training loss per sample, shape (B,)."""

    def loss_of(self, member: str, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        """That of one of its `members` alone, shape (B,)."""
        if member:
            raise KeyError(f"{type(self).__name__} has no member {member}")
        return self.loss(x0, cond, noise)

    def accepts(self, sampler: Sampler) -> None:
        """Raises UserError, saying what works, where it can't be sampled so."""

    def blank(
        self, modality: Modality, spec: LatentSpec, noise: Noise, columns: Mapping[str, Any]
    ) -> Latent:
        """The zero latent that `sample` begins with, one row for each seed of the noise: of sizes
        that the columns ask for, or that are drawn."""
        return modality.sizes.blank(spec, noise, columns)

    @abstractmethod
    def sample(
        self,
        blank: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        """One sample for each of `blank`, which gives sizes, dtype and device."""

    def invert(
        self,
        x0: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        """The noise, standard normal where the model is perfect, from which `sample` with the same
        sampler leads back to x0. Guidance may draw from `noise`, as it does there. Raises
        ValueError for a solver that draws noise."""
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


def schedules_of(generator: Generator) -> Sequence[Schedule]:
    """Of the noise that its samples come from, one for each member that solves; none where they
    come from none."""
    found = (member.schedule for member in generator.members.values())
    return [schedule for schedule in found if schedule is not None]


group(
    "generator",
    Generator,
    offers={
        "denoiser": Denoiser,
        "objective": Objective,
        "codebook": Codebook | None,
        "conditions": ConditionSpec,
        "spec": LatentSpec,
        "inner": Maker[Generator],
    },
)
# `inner(spec=..., conditions=..., changes={group: ...}, network=None)` builds a generator of a part
# of the latents from the run's own parts, with other settings of some groups.
