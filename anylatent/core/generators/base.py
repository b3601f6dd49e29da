"""Generators: models of a latent's law, trained by a loss and sampled by a solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from anylatent.core.denoisers import Denoiser
from anylatent.core.latents import Codebook, Condition, ConditionSpec, Latent, LatentSpec, Noise
from anylatent.core.likelihood import Elbo, Measure
from anylatent.core.objectives import Objective
from anylatent.core.process import Grid, Times
from anylatent.core.registry import group
from anylatent.core.solvers import Solver
from anylatent.core.support.files import UserError

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


group(
    "generator",
    Generator,
    offers={
        "denoiser": Denoiser,
        "objective": Objective,
        "codebook": Codebook | None,
        "conditions": ConditionSpec,
    },
)
