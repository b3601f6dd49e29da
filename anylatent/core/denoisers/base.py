"""The denoiser: E[x0 | x_t], the one interface that solvers, guidance and every method see.

A `Denoiser` is a model: x_t, t and a condition to x0. What a solver sees is a `Denoise`: x_t and t
to x0 along one solution, under one condition, with what else a solver may ask of it. `bind` makes
the second of the first. What stands around a denoiser and is one is a `Wrapper`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Self, TypeAlias

from torch import Tensor, nn

from anylatent.core.latents import Condition, Latent
from anylatent.core.process import Schedule, Time
from anylatent.core.support.files import UserError

Estimate: TypeAlias = Callable[[Latent, Time], Latent]
"""x_t, t → x0, by whatever function."""

NO_VARIANCE = (
    "this model has learned no variance: use variance=small or large, or train one with "
    "denoiser=learned_variance objective=hybrid"
)


class Denoise(ABC):
    """x_t, t → x0 along one solution: all that a solver needs, and what it may ask beside."""

    @property
    def remembers(self) -> bool:
        """Whether a call depends on the calls before it."""
        return False

    @abstractmethod
    def __call__(self, x: Latent, t: Time) -> Latent: ...

    def select(self, index: Tensor) -> Denoise | None:
        """For some samples of its batch, which may come again; `index`: long, on the CPU.

        None where there is no such thing: for a plain function, and for one that remembers.
        """
        return None

    def forgetful(self) -> Denoise:
        """The same without what it remembers, as far as it can do without."""
        return self

    def variance(self, x: Latent, t: Time) -> tuple[Latent, Latent]:
        """x0, and the v of `learned_variance`. Raises ValueError where none was learned."""
        raise ValueError(NO_VARIANCE)


class Plain(Denoise):
    """A plain function of x_t and t."""

    def __init__(self, function: Estimate) -> None:
        self.function = function

    def __call__(self, x: Latent, t: Time) -> Latent:
        return self.function(x, t)


def as_denoise(function: Estimate) -> Denoise:
    """What a solver sees of whatever a caller gives it."""
    if isinstance(function, Denoise):
        return function
    return Bound(function, None) if isinstance(function, Denoiser) else Plain(function)


class Denoiser(nn.Module, ABC):
    """x0 estimated from x_t; t has shape (), (B,) or (B, T)."""

    schedule: Schedule

    @abstractmethod
    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent: ...

    @property
    def self_conditioned(self) -> bool:
        """Whether it reads its last estimate, as the fixed condition `estimate` (2208.04202)."""
        return False

    @property
    def sees_given(self) -> bool:
        """Whether it reads what of x_t is known exactly, as the fixed condition `given`: a map of
        ones and zeros, see `given_map`."""
        return False

    @property
    def entry_times(self) -> bool:
        """Whether each entry of x_t may have a time of its own, (B, T): 0 where it is known."""
        return False

    def fresh(self) -> Denoiser:
        """For a new solution: with no memory of another. Itself, where nothing in it remembers."""
        return self

    def select(self, index: Tensor) -> Denoiser | None:
        """For some samples of its batch, which may come again: its own values follow them.

        None for one that remembers a solution. What keeps values per sample overrides this.
        """
        return self if self.fresh() is self else None

    def variance(self, x: Latent, t: Time, cond: Condition | None = None) -> tuple[Latent, Latent]:
        """x0, and the v of `learned_variance`. Raises ValueError where none was learned."""
        raise ValueError(NO_VARIANCE)

    def check_variance(self) -> None:
        """Raises ValueError where none was learned, before anything is computed."""
        if type(self).variance is Denoiser.variance:
            raise ValueError(NO_VARIANCE)

    def tempered(self, temperature: float) -> Denoiser:
        """The same with its logits of tokens divided by this number: below 1, samples are likelier
        and more alike. Raises UserError where it has no such logits."""
        raise UserError(
            f"temperature={temperature}: {type(self).__name__} has no logits of tokens; leave it "
            "out"
        )

    def bind(self, cond: Condition | None) -> Denoise:
        """The denoiser under one condition; along one solution it recalls its last estimate."""
        own = self.fresh()
        return Recalling(own, cond) if self.self_conditioned else Bound(own, cond)


class Wrapper(Denoiser):
    """A denoiser around another, `inner`, to which it leaves all that it does not change."""

    inner: Denoiser

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.schedule = inner, inner.schedule

    @property
    def self_conditioned(self) -> bool:
        return self.inner.self_conditioned

    @property
    def sees_given(self) -> bool:
        return self.inner.sees_given

    @property
    def entry_times(self) -> bool:
        return self.inner.entry_times

    def rebuilt(self, inner: Denoiser) -> Self:
        """The same wrapper around another denoiser."""
        return self if inner is self.inner else self.having(inner=inner)

    def having(self, **modules: nn.Module | None) -> Self:
        """A copy of it with other modules within."""
        twin = copy(self)
        twin._modules = {**self._modules, **modules}  # a copy shares its dictionary
        return twin

    def fresh(self) -> Denoiser:
        return self.rebuilt(self.inner.fresh())

    def select(self, index: Tensor) -> Denoiser | None:
        chosen = None if self.fresh() is not self else self.inner.select(index)
        return None if chosen is None else self.rebuilt(chosen)

    def variance(self, x: Latent, t: Time, cond: Condition | None = None) -> tuple[Latent, Latent]:
        """x0 as it changes it, and v as it is within."""
        between = self.inner.variance(x, t, cond)[1]
        return self(x, t, cond), between

    def tempered(self, temperature: float) -> Denoiser:
        return self.rebuilt(self.inner.tempered(temperature))


class Bound(Denoise):
    """A denoiser under one condition, from which some samples may be selected."""

    def __init__(self, denoiser: Denoiser, cond: Condition | None) -> None:
        self.denoiser, self.cond = denoiser, cond

    @property
    def remembers(self) -> bool:
        return self.denoiser.fresh() is not self.denoiser

    def __call__(self, x: Latent, t: Time) -> Latent:
        found: Latent = self.denoiser(x, t, self.cond)
        return found

    def variance(self, x: Latent, t: Time) -> tuple[Latent, Latent]:
        return self.denoiser.variance(x, t, self.cond)

    def select(self, index: Tensor) -> Bound | None:
        chosen = self.denoiser.select(index)
        cond = None if self.cond is None else self.cond.select(index)
        return None if chosen is None else Bound(chosen, cond)


class Recalling(Denoise):
    """A denoiser that is told its estimate of the call before: self-conditioning."""

    def __init__(self, denoiser: Denoiser, cond: Condition | None) -> None:
        self.denoiser, self.cond = denoiser, cond or Condition()
        self.estimate: Latent | None = None

    @property
    def remembers(self) -> bool:
        return True

    def forgetful(self) -> Bound:
        """The denoiser without an estimate, as at a first step, which it has learned as well."""
        return Bound(self.denoiser, self.cond)

    def __call__(self, x: Latent, t: Time) -> Latent:
        found: Latent = self.denoiser(x, t, self._known(x))
        self.estimate = found
        return found

    def variance(self, x: Latent, t: Time) -> tuple[Latent, Latent]:
        self.estimate, between = self.denoiser.variance(x, t, self._known(x))
        return self.estimate, between

    def _known(self, x: Latent) -> Condition:
        if self.estimate is None or self.estimate.batch != x.batch:
            return self.cond
        return self.cond.fixed(estimate=self.estimate)
