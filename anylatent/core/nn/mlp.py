"""A residual perceptron for latents that are one vector, such as the global code of a shape.

A block on x: (B, width) is

    x ← x + cross-attention(norm(x), tokens)
    x ← x + gate·network(norm(x)·(1 + scale) + shift),

where shift, scale and gate come from the embedding of noise level and conditions and start at zero,
as in adaLN-zero (2212.09748), so that a block starts as the identity. It takes the place of the
residual networks on shape vectors in LION (2210.06978) and of the prior of Diffusion-SDF
(2211.13757).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, LatentSpec
from anylatent.core.nn.attention import Attention
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.conditioning import ConditionEmbedder, Embedded
from anylatent.core.nn.embedding import FEATURES, Features, NoiseEmbedding
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import zero
from anylatent.core.nn.sites import Site, Visit, visiting
from anylatent.core.registry import register


@register("backbone", "mlp", parts=FEATURES)
class MLP(Backbone):
    """`depth` residual blocks of `width` units on the numbers of a latent of one field (D,).

    Each block has a network `ratio` times as wide, steered by noise level and condition; where the
    condition has tokens, the vector first attends to them with `heads` heads. A map of the
    condition is (B, C) and stands beside the input. `output`, of one field (D',) of the same name,
    is the spec of what it returns, that of its input by default. `features` are those of the noise
    level. The output is zero at initialisation.
    """

    def __init__(
        self,
        spec: LatentSpec | None = None,
        conditions: ConditionSpec | None = None,
        output: LatentSpec | None = None,
        *,
        width: int = 256,
        depth: int = 6,
        ratio: float = 2.0,
        heads: int = 4,
        dropout: float = 0.0,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self.spec = LatentSpec({"z": Field((64,))}) if spec is None else spec
        self.conditions = ConditionSpec() if conditions is None else conditions
        self.output = self.spec if output is None else output
        (self.name, inputs), (result, outputs) = _vector(self.spec), _vector(self.output)
        if result != self.name:
            raise ValueError(f"the output of {self.spec} has its field '{self.name}', got {output}")
        self.noise = NoiseEmbedding(width, features)
        self.condition = ConditionEmbedder(self.conditions, width)
        self.first = nn.Linear(inputs + self.condition.overlaid, width)
        context = self.condition.context
        self.blocks = nn.ModuleList(
            Block(width, int(width * ratio), context, heads, dropout) for _ in range(depth)
        )
        self.sites = [
            site
            for i, block in enumerate(self.blocks)
            if isinstance(block, Block)
            for site in block.sites(f"blocks.{i}", width)
        ]
        self.norm = AdaptiveLayerNorm(width)
        self.last = zero(nn.Linear(width, outputs))

    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        z = x[self.name]
        known = self.condition(cond, z)
        embedding = silu(self.noise(self.levels(c_noise, x)) + known.vector)
        h = self.first(self.condition.overlay(z, cond))
        visit = visiting(guest, self.sites, embedding)
        for block in self.blocks:
            h = block(h, embedding, known, visit)
            if visit is not None and visit.over:
                return x.zeros()
        out: Tensor = self.last(self.norm(h, embedding))
        return Latent({self.name: out.to(x.dtype)}, x.masks, self.output)


class Block(nn.Module):
    """A residual network `hidden` wide on vectors (B, width), steered by an embedding (B, width).

    `context` is the width of tokens to attend to, None for none.
    """

    def __init__(
        self, width: int, hidden: int, context: int | None, heads: int, dropout: float
    ) -> None:
        super().__init__()
        crossed = context is not None
        self.norm_cross = nn.LayerNorm(width) if crossed else None
        self.cross = Attention(width, heads, context, normed=True) if crossed else None
        self.norm = AdaptiveLayerNorm(width)
        self.gate = zero(nn.Linear(width, width))
        self.network = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )

    def sites(self, name: str, width: int) -> list[Site]:
        """After each branch; the vector is one token, (B, 1, width)."""
        kinds = {**({"cross": True} if self.cross else {}), "network": False}
        return [Site(f"{name}.{k}", width, "tokens", a, width) for k, a in kinds.items()]

    def forward(
        self, x: Tensor, embedding: Tensor, known: Embedded, visit: Visit | None = None
    ) -> Tensor:
        if self.cross is not None and self.norm_cross is not None:
            query = self.norm_cross(x)[:, None]
            x = x + self.cross(query, known.context, known.mask, visit=visit)[:, 0]
            x = _gone(x, visit)
        x = torch.addcmul(x, self.gate(embedding), self.network(self.norm(x, embedding)))
        return _gone(x, visit)


def _gone(x: Tensor, visit: Visit | None) -> Tensor:
    return x if visit is None else visit(x[:, None])[:, 0]


class AdaptiveLayerNorm(nn.Module):
    """norm(x)·(1 + scale) + shift of vectors (B, width), a plain norm at initialisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero(nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift, scale = self.modulation(embedding).chunk(2, -1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


def _vector(spec: LatentSpec) -> tuple[str, int]:
    """The name and the size of the only field."""
    if len(spec.fields) == 1:
        ((name, field),) = spec.fields.items()
        if len(field.shape) == 1 and not field.variable:
            return name, int(field.shape[0] or 0)
    raise ValueError(
        f"backbone=mlp takes latents of one field (D,), got {spec}: use an autoencoder that makes "
        "vectors, or another backbone"
    )
