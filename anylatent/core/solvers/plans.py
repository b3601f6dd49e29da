"""The plans that were made last: one is a function of solver, schedule and times alone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anylatent.core.process import Schedule

if TYPE_CHECKING:
    from anylatent.core.solvers.base import Solver, Step

_kept: deque[tuple[object, list[Step]]] = deque(maxlen=4)


def planned(solver: Solver, schedule: Schedule, times: Tensor) -> list[Step]:
    """The solver's plan, of those made last where it is among them. None is kept of a schedule that
    learns, and of one or a solver with an attribute that can't be told to be as it was."""
    if schedule.learned is not None:
        return solver.plan(schedule, times)
    try:
        of = [_told(solver), _told(schedule), times.shape, times.numpy().tobytes()]
    except _UntoldError:
        return solver.plan(schedule, times)
    of.append(torch.is_inference_mode_enabled())  # tensors made there have no use elsewhere
    for made_of, plan in _kept:
        if made_of == of:
            return plan
    plan = solver.plan(schedule, times)
    _kept.append((of, plan))
    return plan


class _UntoldError(Exception):
    """A value of which it can't be told whether it has changed."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """A tensor as it was: the same one, and nothing has been written to it since."""

    tensor: Tensor
    version: int

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Seen):
            return False
        return self.tensor is other.tensor and self.version == other.version

    __hash__ = None  # type: ignore[assignment]


def _told(value: Any) -> object:
    """All that there is to a value: plain ones, functions, tensors, and objects that have these."""
    if value is None or isinstance(value, (bool, int, float, str, FunctionType)):
        return type(value), value
    if isinstance(value, partial):
        return [_told(value.func), _told(value.args), *sorted(value.keywords.items())]
    if isinstance(value, dict):
        return {name: _told(inner) for name, inner in value.items()}
    if isinstance(value, (tuple, list)) or (isinstance(value, set) and not value):
        return [_told(entry) for entry in value]
    if type(value) is Tensor and not value.requires_grad and not value.is_inference():
        return _Seen(value, value._version)
    if hasattr(value, "__dict__") and not isinstance(value, Tensor):
        return type(value), _told(vars(value))
    raise _UntoldError
