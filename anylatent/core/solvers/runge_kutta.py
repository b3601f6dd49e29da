"""Dormand and Prince's embedded pair of orders 5 and 4, and the choice of the next step's size.

Reference: Dormand and Prince, 1980, "A family of embedded Runge-Kutta formulae".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from anylatent.core.latents import Latent

State = TypeVar("State")

# the last row is the solution of order 5, whose slope is the first one of the next step
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ROWS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
MOST_STEPS = 1000


def attempt(
    flow: Callable[[State, float], State],
    add: Callable[..., State],
    state: State,
    slope: State,
    h: Tensor,
) -> tuple[State, State, State]:
    """The state after a step h, the estimate of its error, and the slope there.

    `flow(state, part)` is the slope after this part of the step, `add((c, state), ...)` a sum.
    """
    slopes, point = [slope], state
    for node, row in zip(NODES, ROWS, strict=True):
        point = add((1.0, state), *_scaled(h, row, slopes))
        slopes.append(flow(point, node))
    return point, add(*_scaled(h, ERROR, slopes)), slopes[-1]


def _scaled(h: Tensor, row: Sequence[float], slopes: list[State]) -> list[tuple[Tensor, State]]:
    return [(h * weight, slope) for weight, slope in zip(row, slopes, strict=True) if weight]


def excess(error: Latent, after: Latent, tolerance: float) -> Tensor:
    """The error per degree of freedom over tolerance·(1 + |after|), shape (B,)."""
    root = after.dim.clamp(min=1).sqrt()
    return error.norm() / (root + after.norm()) / tolerance


def resized(h: Tensor, excess: Tensor, power: float = 0.2) -> Tensor:
    """The size of the next step, from the last one's error over the tolerance."""
    return h * (0.9 * excess.clamp(min=1e-10) ** -power).clamp(0.2, 5)
