"""Noise schedules: x_t = alpha(t)·x0 + sigma(t)·noise, t in [0, 1], t = 0 data, t = 1 noise.

The log-SNR λ = 2·log(alpha / sigma) falls strictly. Coefficients are float64 (float32 where the
device has no float64). Ends are exact: sigma(0) = 0 gives λ = ∞ and, where the terminal SNR is
zero, alpha(1) = 0 gives λ = -∞.
"""

from anylatent.core.process.schedules.base import (
    Schedule,
    Time,
    VarianceCurve,
    angle_log_snr,
    as_time,
)
from anylatent.core.process.schedules.classic import (
    Cosine,
    RectifiedFlow,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)
from anylatent.core.process.schedules.curves import (
    GeometricVariance,
    Polynomial,
    SigmoidCurve,
    SquareRoot,
)
from anylatent.core.process.schedules.derived import Derived, Shifted, ZeroTerminalSNR
from anylatent.core.process.schedules.learned import Learned
from anylatent.core.process.schedules.table import Table, table

__all__ = [
    "Cosine",
    "Derived",
    "GeometricVariance",
    "Learned",
    "Polynomial",
    "RectifiedFlow",
    "Schedule",
    "Shifted",
    "SigmoidCurve",
    "SquareRoot",
    "SubVariancePreserving",
    "Table",
    "Time",
    "VarianceCurve",
    "VarianceExploding",
    "VariancePreserving",
    "ZeroTerminalSNR",
    "angle_log_snr",
    "as_time",
    "table",
]
