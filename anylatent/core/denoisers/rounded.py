"""A denoiser that commits to tokens."""

from __future__ import annotations

from collections.abc import Set

from anylatent.core.denoisers.preconditioned import Network, Preconditioned, told_maps
from anylatent.core.latents import Codebook, Condition, Latent, LatentSpec
from anylatent.core.process import Prediction, Schedule, Time
from anylatent.core.registry import register
from anylatent.core.support.files import UserError


class Rounded(Preconditioned):
    """The clamping trick of Diffusion-LM (2205.14217): x0 is moved to the nearest token's vector.

    In training the estimate stays as it is; in sampling every step commits to tokens.
    """

    codebook: Codebook

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        found = super().forward(x, t, cond)
        if self.training:
            return found
        nearest = self.codebook.latent(self.codebook.tokens(found), x.masks.get(self.codebook.name))
        return nearest.to(found.dtype)


@register("denoiser", "rounded")
def rounded(
    network: Network,
    schedule: Schedule,
    prediction: Prediction,
    codebook: Codebook | None = None,
    data_std: float = 1.0,
    spec: LatentSpec | None = None,
    tells: Set[str] = frozenset(),
) -> Rounded:
    """Preconditioned; in sampling, x0 moves to the nearest token: clamping (2205.14217)."""
    if codebook is None:
        raise UserError(
            "denoiser=rounded needs latents that stand for tokens: choose an autoencoder with a "
            "codebook, such as embedding"
        )
    maps = None if spec is None else told_maps(spec, tells)
    denoiser = Rounded(network(maps=maps), schedule, prediction, data_std, tells)
    denoiser.codebook = codebook
    return denoiser
