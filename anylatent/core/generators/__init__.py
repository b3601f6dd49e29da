"""Models of a latent's law, trained by a loss and sampled by a solver."""

from anylatent.core.generators.base import READABLE, Generator, schedules_of
from anylatent.core.generators.cascade import Cascade
from anylatent.core.generators.diffusion import Diffusion
from anylatent.core.generators.sampler import Guidance, Sampler
from anylatent.core.generators.start import Start

__all__ = [
    "READABLE",
    "Cascade",
    "Diffusion",
    "Generator",
    "Guidance",
    "Sampler",
    "Start",
    "schedules_of",
]
