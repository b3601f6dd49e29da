"""Exact denoisers, and contract tests: each `check_*` raises AssertionError with what is wrong."""

from anylatent.core.denoisers import GaussianDenoiser, MixtureDenoiser, SpikedGaussian
from anylatent.core.testing.autoencoders import check_autoencoder
from anylatent.core.testing.conditioners import check_conditioner
from anylatent.core.testing.data import check_data, check_modality
from anylatent.core.testing.denoisers import check_denoiser, check_guidance
from anylatent.core.testing.examples import SPECS, example, in_subspace
from anylatent.core.testing.guests import check_sites
from anylatent.core.testing.networks import check_backbone
from anylatent.core.testing.outputs import check_metric, check_outputs
from anylatent.core.testing.process import check_grid, check_prediction, check_schedule
from anylatent.core.testing.sampling import check_solver
from anylatent.core.testing.training import check_features, check_times, check_weighting

__all__ = [
    "SPECS",
    "GaussianDenoiser",
    "MixtureDenoiser",
    "SpikedGaussian",
    "check_autoencoder",
    "check_backbone",
    "check_conditioner",
    "check_data",
    "check_denoiser",
    "check_features",
    "check_grid",
    "check_guidance",
    "check_metric",
    "check_modality",
    "check_outputs",
    "check_prediction",
    "check_schedule",
    "check_sites",
    "check_solver",
    "check_times",
    "check_weighting",
    "example",
    "in_subspace",
]
