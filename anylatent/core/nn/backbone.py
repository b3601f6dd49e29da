"""The network of a denoiser: latents in, latents out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from anylatent.core.latents import Condition, ConditionSpec, Latent, LatentSpec
from anylatent.core.nn.sites import Site
from anylatent.core.registry import group

if TYPE_CHECKING:
    from anylatent.core.nn.guests import Guest


class Backbone(nn.Module, ABC):
    """A network from a noisy latent to a latent of the same spec.

    Sizes come from `spec` (the autoencoder's) and `conditions` (the conditioner's). Its input has
    about unit variance. Its output need not lie in the subspace: the denoiser projects it.

    `sites` are the places where a guest is asked, in the order of a call; see `guests`.
    """

    spec: LatentSpec
    conditions: ConditionSpec
    sites: Sequence[Site] = ()

    @abstractmethod
    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        """`c_noise`, shape (B,) or (B, T), tells the noise level, within about [-5, 5].

        A missing key of `cond` means the same as one that is dropped for every sample. Without a
        guest nothing is asked at the sites.
        """


group(
    "backbone",
    Backbone,
    offers={"spec": LatentSpec, "conditions": ConditionSpec, "output": LatentSpec | None},
)
