"""Models of a latent's law, trained by a loss and sampled by a solver."""

from anylatent.core.generators.around import Around, steps_of
from anylatent.core.generators.base import READABLE, Generator, schedules_of
from anylatent.core.generators.cascade import Cascade
from anylatent.core.generators.diffusion import Diffusion
from anylatent.core.generators.rolling import Rolling
from anylatent.core.generators.sampler import Guidance, Sampler
from anylatent.core.generators.start import Start
from anylatent.core.generators.windows import Windows

__all__ = [
    "READABLE",
    "Around",
    "Cascade",
    "Diffusion",
    "Generator",
    "Guidance",
    "Rolling",
    "Sampler",
    "Start",
    "Windows",
    "schedules_of",
    "steps_of",
]
