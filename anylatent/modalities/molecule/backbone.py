"""The equivariant denoising network of molecules."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import silu

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.conditioning import ConditionEmbedder
from anylatent.core.nn.embedding import Features, NoiseEmbedding
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import zero
from anylatent.modalities.molecule.egnn import EGNN

SPEC = LatentSpec({"x": Field((None, 3), centred=True), "h": Field((None, 5))})


class EGNNBackbone(Backbone):
    """EGNN (2102.09844) as EDM (2203.17003) and GeoLDM (2305.01140) use it, on positions `x` and
    features `h`.

    The output for x is the movement of the positions and a multiple of them, for h a linear map
    of the features; zero at initialisation. Conditions (their vector: of tokens the mean; maps are
    laid over the features) steer every layer. `width` numbers per atom, `edge` per pair, `depth`
    layers. `features` are those of the noise level.
    """

    def __init__(
        self,
        spec: LatentSpec | None = None,
        conditions: ConditionSpec | None = None,
        *,
        width: int = 128,
        edge: int = 48,
        depth: int = 6,
        basis: int = 16,
        ratio: float = 2.0,
        pairs: str = "",
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec or SPEC
        self.conditions = conditions or ConditionSpec()
        if set(self.spec.fields) != {"x", "h"}:
            raise ValueError(
                f"backbone=egnn takes positions x and features h at a time, got {self.spec}: use "
                "generator=diffusion, or one stage of both, generator.stages.both.fields=[x,h]"
            )
        channels = self.spec.fields["h"].rest[0]
        self.noise = NoiseEmbedding(width, features)
        self.condition = ConditionEmbedder(self.conditions, width, attends=False)
        told = channels + self.condition.overlaid
        self.network = EGNN(
            told, width, edge, depth, embedding=width, basis=basis, ratio=ratio, pairs=pairs
        )
        self.scale = zero(nn.Linear(width, 1))
        self.last = zero(nn.Linear(width, channels))
        self.sites = self.network.sites

    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        place, mask = x["x"], x.masks["x"]
        known = self.condition(cond, place)
        embedding = silu(self.noise(self.levels(c_noise, x)) + known.vector)
        told = self.condition.overlay(x["h"], cond, axis=2)
        moved, h = self.network(place, told, mask, embedding, guest)
        scale = self.scale(embedding)[:, None].to(place.dtype)
        return x.replace(x=moved - place + scale * place, h=self.last(h).to(place.dtype))
