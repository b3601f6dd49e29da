"""The first stage: data to latents and back."""

from anylatent.core.autoencoders.base import Autoencoder
from anylatent.core.autoencoders.frozen import FrozenEncoder
from anylatent.core.autoencoders.scale_mixture import of_any_scale

__all__ = ["Autoencoder", "FrozenEncoder", "of_any_scale"]
