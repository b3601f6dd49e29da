"""How likely data are under a model: exactly, and by bounds."""

from anylatent.core.likelihood.elbo import rounding
from anylatent.core.likelihood.flow import Likelihood, log_likelihood
from anylatent.core.likelihood.measures import LOG_SNR, Elbo, Measure
from anylatent.core.likelihood.normal import log_normal

__all__ = ["Elbo", "LOG_SNR", "Likelihood", "Measure", "log_likelihood", "log_normal", "rounding"]
