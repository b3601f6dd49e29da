"""E[x0 | x_t]: the one interface that solvers, guidance and every method see."""

from anylatent.core.denoisers.base import Denoise, Denoiser, Estimate, Plain, Wrapper, as_denoise
from anylatent.core.denoisers.counted import Counted
from anylatent.core.denoisers.exact import GaussianDenoiser, MixtureDenoiser, constant, flatten
from anylatent.core.denoisers.learned_variance import LearnedVariance
from anylatent.core.denoisers.noisy_classifier import Classify, NoisyClassifier
from anylatent.core.denoisers.preconditioned import Network, Preconditioned
from anylatent.core.denoisers.score_interpolation import (
    ScoreInterpolation,
    positive_temperature,
)
from anylatent.core.denoisers.spiked import SpikedGaussian
from anylatent.core.denoisers.stationary import StationaryGaussian

__all__ = [
    "Plain",
    "Wrapper",
    "as_denoise",
    "Classify",
    "Counted",
    "Denoise",
    "Denoiser",
    "Estimate",
    "GaussianDenoiser",
    "LearnedVariance",
    "MixtureDenoiser",
    "Network",
    "NoisyClassifier",
    "Preconditioned",
    "ScoreInterpolation",
    "SpikedGaussian",
    "StationaryGaussian",
    "constant",
    "flatten",
    "positive_temperature",
]
