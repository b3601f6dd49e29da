"""Solvers: from noise to data along a grid of times."""

from anylatent.core.solvers.adaptive import Adaptive
from anylatent.core.solvers.base import Callback, Solver, Step, invert, solve
from anylatent.core.solvers.ddim import DDIM, Learned
from anylatent.core.solvers.paradigms import ParaDiGMS
from anylatent.core.solvers.runge_kutta import MOST_STEPS, NODES, attempt, excess, resized

__all__ = [
    "DDIM",
    "MOST_STEPS",
    "NODES",
    "Adaptive",
    "Callback",
    "Learned",
    "ParaDiGMS",
    "Solver",
    "Step",
    "attempt",
    "excess",
    "invert",
    "resized",
    "solve",
]
