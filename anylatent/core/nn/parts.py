"""Registers the shared blocks that a configuration may choose."""

from anylatent.core.nn.bottleneck import KL
from anylatent.core.nn.quantise import VQ
from anylatent.core.registry import register

register("bottleneck", "kl")(KL)
register("bottleneck", "vq")(VQ)


@register("perceptual", "none")
def no_perceptual() -> None:
    """No perceptual loss."""


@register("adversary", "none")
def no_adversary() -> None:
    """No adversarial loss."""


@register("guidance", "none")
def no_guidance(denoiser: object) -> object:
    """The denoiser as it is, under its condition."""
    return denoiser
