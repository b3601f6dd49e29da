"""Which noise levels a training step sees.

Every sampler is a quantile function of a uniform number, so that any of them can be stratified:
with `stratified`, sample i of the joint batch takes u₀ + i·φ mod 1 with the golden ratio φ, a
low-discrepancy sequence whose members are each uniform.
"""

from anylatent.core.process.times.base import Times, level_limits, time_limits
from anylatent.core.process.times.fixed import LogitNormal, LogNormal, Uniform, low_discrepancy
from anylatent.core.process.times.importance import (
    LikelihoodImportance,
    ReweightedImportance,
    UnweightedImportance,
)
from anylatent.core.process.times.observed import Adaptive, Observed, Warped

__all__ = [
    "Adaptive",
    "LikelihoodImportance",
    "LogNormal",
    "LogitNormal",
    "Observed",
    "ReweightedImportance",
    "Times",
    "Uniform",
    "UnweightedImportance",
    "Warped",
    "level_limits",
    "low_discrepancy",
    "time_limits",
]
