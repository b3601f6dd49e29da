"""The solver interface and the only loop.

Deterministic steps are taken in x/alpha against ρ = sigma/alpha, where every schedule is the same
equation, dy/dρ = (y - x0)/ρ. Each step is a linear combination of latents whose coefficients
depend on the grid alone: `plan` tabulates them once, in float64, for all steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from anylatent.core.denoiser import Denoise
from anylatent.core.latent import Coefficient, Latent
from anylatent.core.noise import Noise
from anylatent.core.schedules import Schedule


@dataclass(frozen=True)
class Step:
    """One step from time t to s < t, with the solver's own coefficients for it."""

    t: Tensor
    s: Tensor
    coefficients: Sequence[Any]


class Solver(ABC):
    """A rule for one step; `order` and `evaluations` per step are attributes of the class.

    A solver keeps no state of its own: what one step leaves for the next is its `memory`.
    """

    order: ClassVar[int]
    evaluations: ClassVar[int]

    @property
    def stochastic(self) -> bool:
        """Whether steps draw noise."""
        return False

    @abstractmethod
    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        """The steps along `times`, shape (N + 1,) or (N + 1, B) or (N + 1, B, T)."""

    @abstractmethod
    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Any, noise: Noise | None
    ) -> tuple[Latent, Any]:
        """x at time `step.s`, and the memory for the next step (None at the first)."""


def solve(
    solver: Solver,
    denoise: Denoise,
    schedule: Schedule,
    x: Latent,
    times: Tensor,
    noise: Noise | None = None,
    callback: Callable[[int, Tensor, Latent], None] | None = None,
) -> Latent:
    """Takes x at times[0] to times[-1]; `callback(i, times[i], x)` after each step i = 1, 2, ..."""
    if times.ndim < 1 or len(times) < 2 or not bool((times.diff(dim=0) < 0).all()):
        raise ValueError(f"times must decrease strictly and be at least two, got {times.tolist()}")
    if solver.stochastic and noise is None:
        raise ValueError(f"{type(solver).__name__} draws noise at each step: give solve a Noise")
    memory = None
    for index, step in enumerate(solver.plan(schedule, times.double().cpu()), start=1):
        x, memory = solver.step(denoise, x, step, memory, noise)
        if callback is not None:
            callback(index, step.s, x)
    return x


def tabulate(times: Tensor, *columns: Tensor) -> list[Step]:
    """Steps whose coefficients are numbers where the times are, else tensors of shape (B, ...)."""
    rows: Sequence[Sequence[Coefficient]]
    if times.ndim == 1:
        rows = torch.stack(columns, -1).tolist()
    else:
        rows = list(zip(*(column.unbind(0) for column in columns), strict=True))
    points = times.unbind(0)
    return [Step(t, s, row) for t, s, row in zip(points[:-1], points[1:], rows, strict=True)]
