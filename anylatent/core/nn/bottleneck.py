"""What regularises the latent space between encoder and decoder.

A bottleneck turns the encoder's features into a posterior, adds its loss terms, and may change a
latent before it is decoded. It learns the latent spec from the autoencoder that owns it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from anylatent.core.latents import Latent, LatentSpec, Noise, Posterior
from anylatent.core.registry import group, register

BOTTLENECK = {"bottleneck": ("bottleneck", "kl")}
"""For `register(..., parts=BOTTLENECK)`: an autoencoder whose bottleneck is a part."""


class Bottleneck(nn.Module, ABC):
    """Between encoder and decoder. The encoder makes `pieces` latents, which `posterior` takes."""

    pieces: int = 1

    def attach(self, spec: LatentSpec) -> None:
        """Called once by the autoencoder that owns the bottleneck."""

    @abstractmethod
    def posterior(self, *pieces: Latent) -> Posterior:
        """q(z | data) from the encoder's latents."""

    def decodable(self, z: Latent) -> Latent:
        """What the decoder reads for a latent z; z itself unless it is quantised."""
        return z

    @abstractmethod
    def forward(self, posterior: Posterior, noise: Noise) -> tuple[Latent, dict[str, Tensor]]:
        """What the decoder reads in training, and the weighted loss terms, each (B,)."""

    def report(self) -> dict[str, float]:
        """Figures worth logging."""
        return {}


group("bottleneck", Bottleneck)


@register("bottleneck", "kl")
class KL(Bottleneck):
    """A Gaussian posterior, kept near the standard normal. 1312.6114, in LDM (2112.10752).

    Adds `weight` · KL / dim, in nats per latent number. The log standard deviation is clamped to
    [−10, 2].
    """

    pieces = 2

    def __init__(self, weight: float = 1e-3) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"the weight of the KL term must not be negative, got {weight}")
        self.weight = weight

    def posterior(self, *pieces: Latent) -> Posterior:
        mean, log_std = pieces
        return Posterior(mean, log_std.map(lambda x: x.clamp(-10, 2)))

    def forward(self, posterior: Posterior, noise: Noise) -> tuple[Latent, dict[str, Tensor]]:
        kl = posterior.kl() / posterior.mean.dim.clamp(min=1)
        return posterior.sample(noise), {"kl": self.weight * kl}
