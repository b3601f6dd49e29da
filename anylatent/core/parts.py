"""The parts that come with the core: importing this module registers them."""

from anylatent.core import (
    autoregressive,
    conditioners,
    denoiser,
    generators,
    grids,
    guidance,
    identity,
    learned_variance,
    masking,
    measures,
    objectives,
    predictions,
    schedules,
    score_interpolation,
    solvers,
    times,
    weightings,
)
from anylatent.core.nn import parts as blocks
from anylatent.core.training import optimizers

__all__ = [
    "autoregressive",
    "blocks",
    "conditioners",
    "denoiser",
    "generators",
    "grids",
    "guidance",
    "identity",
    "learned_variance",
    "masking",
    "measures",
    "objectives",
    "optimizers",
    "predictions",
    "schedules",
    "score_interpolation",
    "solvers",
    "times",
    "weightings",
]
