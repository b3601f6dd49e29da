"""The parts that come with the core: importing this module registers them."""

from anylatent.core import (
    conditioners,
    generators,
    grids,
    guidance,
    identity,
    objectives,
    predictions,
    schedules,
    solvers,
    times,
    weightings,
)
from anylatent.core.nn import parts as blocks
from anylatent.core.training import optimizers

__all__ = [
    "blocks",
    "conditioners",
    "generators",
    "grids",
    "guidance",
    "identity",
    "objectives",
    "optimizers",
    "predictions",
    "schedules",
    "solvers",
    "times",
    "weightings",
]
