"""Models of a latent's law, trained by a loss and sampled by a solver."""

from anylatent.core.generators.base import READABLE, Callback, Generator, Guidance
from anylatent.core.generators.cascade import Cascade
from anylatent.core.generators.diffusion import Diffusion
from anylatent.core.generators.start import Start

__all__ = ["Callback", "Cascade", "Diffusion", "Generator", "Guidance", "READABLE", "Start"]
