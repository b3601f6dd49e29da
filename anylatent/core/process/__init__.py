"""From data to noise: schedules, what a network predicts, times and grids."""

from anylatent.core.process.grids import Grid, LogSNRGrid
from anylatent.core.process.predictions import Prediction
from anylatent.core.process.schedules import Schedule, Time, angle_log_snr, as_time
from anylatent.core.process.schedules.base import LOG_SNR_LIMIT
from anylatent.core.process.times import LogitNormal, Times, Warped, time_limits

__all__ = [
    "LOG_SNR_LIMIT",
    "Grid",
    "LogSNRGrid",
    "LogitNormal",
    "Prediction",
    "Schedule",
    "Time",
    "Times",
    "Warped",
    "angle_log_snr",
    "as_time",
    "time_limits",
]
