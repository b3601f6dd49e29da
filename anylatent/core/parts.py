"""The parts that come with the core: importing this module registers them."""

from anylatent.core import (
    generators,
    grids,
    guidance,
    objectives,
    predictions,
    schedules,
    solvers,
    times,
    weightings,
)

__all__ = [
    "generators",
    "grids",
    "guidance",
    "objectives",
    "predictions",
    "schedules",
    "solvers",
    "times",
    "weightings",
]
