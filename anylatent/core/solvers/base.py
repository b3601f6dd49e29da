"""The solver interface and the only loop.

Every schedule is the same pair of equations,

    d(x/alpha)/dρ = noise(x, t),  ρ = sigma/alpha;    d(x/sigma)/dκ = x0(x, t),  κ = alpha/sigma,

so each step is a linear combination of latents whose coefficients depend on the grid alone:
`plan` tabulates them once, in float64, for all steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoise, Estimate, as_denoise
from anylatent.core.latents import Coefficient, Latent, Noise, combine
from anylatent.core.process import Schedule
from anylatent.core.registry import group
from anylatent.core.solvers.plans import planned

Callback: TypeAlias = Callable[[int, Tensor, Latent], None]
"""i, times[i], x after step i = 1, 2, ..."""


@dataclass(frozen=True)
class Step:
    """One step from time t to s < t, with the solver's own coefficients for it."""

    t: Tensor
    s: Tensor
    coefficients: Any


class Solver(ABC):
    """A rule for one step, of convergence order `order`, with at most `evaluations` calls in each.

    A start in the middle, t < 1, may take one call more.

    A solver keeps no state of its own: what one step leaves for the next is its `memory`.
    """

    order: int
    evaluations: int
    tolerance: float = 0.0
    """Of the error that a solver allows itself whatever the grid, per degree of freedom."""
    asks_variance: bool = False
    """Of the denoiser, which must have learned one."""

    @property
    def stochastic(self) -> bool:
        """Whether steps draw noise."""
        return False

    def cost(self, steps: int) -> int:
        """The calls of the denoiser over a whole solution from t = 1."""
        return self.evaluations * steps

    @abstractmethod
    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        """The steps along `times`, shape (N + 1,) or (N + 1, B) or (N + 1, B, T).

        A deterministic solver's steps may also go up, from s to t > s; see `invert`.
        """

    @abstractmethod
    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Any, noise: Noise | None
    ) -> tuple[Latent, Any]:
        """x at time `step.s`, and the memory for the next step (None at the first), which may have
        taken over what was in the last one: that has been of use then."""

    def run(
        self,
        denoise: Denoise,
        schedule: Schedule,
        x: Latent,
        times: Tensor,
        noise: Noise | None,
        callback: Callback | None,
    ) -> Latent:
        """All steps, one after the other; a solver that takes several at once has its own."""
        memory = None
        for index, step in enumerate(planned(self, schedule, times), start=1):
            x, memory = self.step(denoise, x, step, memory, noise)
            if callback is not None:
                callback(index, step.s, x)
        return x


group("solver", Solver)


def solve(
    solver: Solver,
    denoise: Estimate,
    schedule: Schedule,
    x: Latent,
    times: Tensor,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Latent:
    """Takes x at times[0] to times[-1]; `callback(i, times[i], x)` after each step i = 1, 2, ..."""
    if times.ndim < 1 or len(times) < 2 or not bool((times.diff(dim=0) < 0).all()):
        raise ValueError(f"times must decrease strictly and be at least two, got {times.tolist()}")
    if solver.stochastic and noise is None:
        raise ValueError(f"{type(solver).__name__} draws noise at each step: give solve a Noise")
    times = times.double().cpu()
    return solver.run(as_denoise(denoise), schedule, x, times, noise, callback)


def invert(
    solver: Solver,
    denoise: Estimate,
    schedule: Schedule,
    x0: Latent,
    times: Tensor,
    callback: Callback | None = None,
) -> Latent:
    """Takes data to the noise from which `solve` leads back to them: the flow upwards in time.

    `times` as for `solve`. At sigma = 0 a denoiser knows nothing of noise, so a grid that ends
    there is left at its last step with x/alpha as it is: an error of the second order in that
    level. Raises ValueError for a solver that draws noise, and for fewer than two times above 0.
    """
    if solver.stochastic:
        raise ValueError(
            f"{type(solver).__name__} draws noise: only a deterministic solver can be inverted"
        )
    upwards = times.double().cpu().flip(0)
    clean = schedule.sigma(upwards[0]) == 0
    if bool(clean.any()):
        alpha = schedule.alpha(upwards[:2])
        x0, upwards = combine((alpha[1] / alpha[0], x0)), upwards[1:]
    if len(upwards) < 2 or not bool((upwards.diff(dim=0) > 0).all()):
        raise ValueError(
            f"inversion needs strictly decreasing times, two of them above 0, got {times.tolist()}"
        )
    return solver.run(as_denoise(denoise), schedule, x0, upwards, None, callback)


def counts(coefficient: Coefficient) -> bool:
    """Whether it is more than the number 0."""
    return isinstance(coefficient, Tensor) or coefficient != 0


def weighted(*terms: tuple[Coefficient, Latent], room: Latent | None = None) -> Latent:
    """Σ c·x without the terms whose coefficient is the number 0; `room` as for `combine`. A term
    alone that counts once is the sum itself."""
    kept = [term for term in terms if isinstance(term[0], Tensor) or term[0]]
    if len(kept) == 1 and not isinstance(kept[0][0], Tensor) and kept[0][0] == 1:
        return kept[0][1]
    return combine(*(kept or terms[:1]), room=room)


def tabulate(times: Tensor, *columns: Tensor) -> list[Step]:
    """Steps whose coefficients are numbers where the times are, else tensors of shape (B, ...)."""
    rows: Sequence[Sequence[Coefficient]]
    if times.ndim == 1:
        rows = torch.stack(columns, -1).tolist()
    else:
        rows = list(zip(*(column.unbind(0) for column in columns), strict=True))
    points = times.unbind(0)
    return [Step(t, s, row) for t, s, row in zip(points[:-1], points[1:], rows, strict=True)]
