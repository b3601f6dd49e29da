"""The network of a denoiser: latents in, latents out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from anylatent.core.latents import Condition, ConditionSpec, Latent, LatentSpec
from anylatent.core.registry import group


class Backbone(nn.Module, ABC):
    """A network from a noisy latent to a latent of the same spec.

    Sizes come from `spec` (the autoencoder's) and `conditions` (the conditioner's). Its input has
    about unit variance. Its output need not lie in the subspace: the denoiser projects it.
    """

    spec: LatentSpec
    conditions: ConditionSpec

    @abstractmethod
    def forward(self, x: Latent, c_noise: Tensor, cond: Condition | None = None) -> Latent:
        """`c_noise`, shape (B,) or (B, T), tells the noise level, within about [-5, 5].

        A missing key of `cond` means the same as one that is dropped for every sample.
        """


group(
    "backbone",
    Backbone,
    offers={"spec": LatentSpec, "conditions": ConditionSpec, "output": LatentSpec | None},
)
