"""The denoiser: E[x0 | x_t], the one interface that solvers, guidance and every method see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from typing import TypeAlias

from torch import Tensor, nn

from anylatent.core.latents import Condition, Latent
from anylatent.core.process import Schedule, Time

Denoise: TypeAlias = Callable[[Latent, Time], Latent]
"""x_t, t → x0: all that a solver needs."""


NO_VARIANCE = (
    "this model has learned no variance: use variance=small or large, or train one with "
    "denoiser=learned_variance objective=hybrid"
)


class Denoiser(nn.Module, ABC):
    """x0 estimated from x_t; t has shape (), (B,) or (B, T).

    What wraps a denoiser, such as guidance, keeps it as `self.denoiser`.
    """

    schedule: Schedule

    @abstractmethod
    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent: ...

    @property
    def recalls(self) -> bool:
        """Whether it reads its last estimate, as the fixed condition `estimate` (2208.04202)."""
        inner = getattr(self, "denoiser", None)
        return isinstance(inner, Denoiser) and inner.recalls

    @property
    def completes(self) -> bool:
        """Whether it reads what of x_t is known exactly, as the fixed condition `given`: a map of
        ones and zeros, see `given_map`."""
        inner = getattr(self, "denoiser", None)
        return isinstance(inner, Denoiser) and inner.completes

    @property
    def entry_times(self) -> bool:
        """Whether each entry of x_t may have a time of its own, (B, T): 0 where it is known."""
        inner = getattr(self, "denoiser", None)
        return isinstance(inner, Denoiser) and inner.entry_times

    def fresh(self) -> Denoiser:
        """For a new solution: with no memory of another. Itself, where nothing in it remembers."""
        inner = getattr(self, "denoiser", None)
        return self._around(inner.fresh()) if isinstance(inner, Denoiser) else self

    def select(self, index: Tensor) -> Denoiser | None:
        """For some samples of its batch, which may come again: its own values follow them.

        None for one that remembers a solution. What keeps values per sample overrides this.
        """
        if self.fresh() is not self:
            return None
        inner = getattr(self, "denoiser", None)
        chosen = inner.select(index) if isinstance(inner, Denoiser) else None
        return self if chosen is None else self._around(chosen)

    def _around(self, inner: Denoiser) -> Denoiser:
        """The same wrapper around another denoiser."""
        if inner is self.denoiser:
            return self
        twin = copy(self)
        twin._modules = {**self._modules, "denoiser": inner}  # a copy shares them
        return twin

    def with_variance(
        self, x: Latent, t: Time, cond: Condition | None = None
    ) -> tuple[Latent, Latent]:
        """x0, and the v of `learned_variance`; what wraps a denoiser leaves v as it is.

        Raises ValueError for one that has learned none.
        """
        inner = getattr(self, "denoiser", None)
        if not isinstance(inner, Denoiser):
            raise ValueError(NO_VARIANCE)
        return self(x, t, cond), inner.with_variance(x, t, cond)[1]

    def bind(self, cond: Condition | None) -> Denoise:
        """The denoiser under one condition; along one solution it recalls its last estimate."""
        own = self.fresh()
        if self.recalls:
            return Recalling(own, cond)
        return Bound(own, cond)


class Bound:
    """A denoiser under one condition, from which some samples may be selected."""

    def __init__(self, denoiser: Denoiser, cond: Condition | None) -> None:
        self.denoiser, self.cond = denoiser, cond

    @property
    def remembers(self) -> bool:
        """Whether a call depends on the calls before it."""
        return self.denoiser.fresh() is not self.denoiser

    def __call__(self, x: Latent, t: Time) -> Latent:
        found: Latent = self.denoiser(x, t, self.cond)
        return found

    def with_variance(self, x: Latent, t: Time) -> tuple[Latent, Latent]:
        return self.denoiser.with_variance(x, t, self.cond)

    def select(self, index: Tensor) -> Bound | None:
        chosen = self.denoiser.select(index)
        cond = None if self.cond is None else self.cond.select(index)
        return None if chosen is None else Bound(chosen, cond)


def restrict(denoise: Denoise, index: Tensor) -> Denoise | None:
    """The denoiser of some samples of a batch, which may come again; `index`: long, on the CPU.

    None where there is no such thing: for a plain function, and for one that remembers.
    """
    select = getattr(denoise, "select", None)
    found: Denoise | None = None if select is None else select(index)
    return found


class Recalling:
    """A denoiser that is told its estimate of the call before: self-conditioning."""

    def __init__(self, denoiser: Denoiser, cond: Condition | None) -> None:
        self.denoiser, self.cond = denoiser, cond or Condition()
        self.estimate: Latent | None = None

    remembers = True

    @property
    def forgetful(self) -> Bound:
        """The denoiser without an estimate, as at a first step, which it has learned as well."""
        return Bound(self.denoiser, self.cond)

    def __call__(self, x: Latent, t: Time) -> Latent:
        found: Latent = self.denoiser(x, t, self._known(x))
        self.estimate = found
        return found

    def with_variance(self, x: Latent, t: Time) -> tuple[Latent, Latent]:
        self.estimate, between = self.denoiser.with_variance(x, t, self._known(x))
        return self.estimate, between

    def _known(self, x: Latent) -> Condition:
        if self.estimate is None or self.estimate.batch != x.batch:
            return self.cond
        return self.cond.fixed(estimate=self.estimate)
