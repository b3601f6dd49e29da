"""A diffusion transformer for latents of one field (C, H, W)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.conditioning import ConditionEmbedder
from anylatent.core.nn.embedding import Features, NoiseEmbedding, grid_positions
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import modulate, zero
from anylatent.core.nn.sites import visiting
from anylatent.core.nn.transformer import Block, block_sites
from anylatent.core.nn.unet import grid_field


class DiT(Backbone):
    """Transformer blocks on patches, steered by adaLN-zero. DiT (2212.09748).

    Patches of `patch`² latent pixels become tokens of `width` numbers with sine-cosine positions;
    `depth` blocks of attention, cross-attention if the condition has tokens, and a network `ratio`
    times as wide. Every block is the identity and the output zero at initialisation. `normed`
    normalises queries and keys; `features` are those of the noise level.
    """

    positions: Tensor

    def __init__(
        self,
        spec: LatentSpec | None = None,
        conditions: ConditionSpec | None = None,
        *,
        patch: int = 1,
        width: int = 256,
        depth: int = 8,
        heads: int = 4,
        ratio: float = 4.0,
        dropout: float = 0.0,
        normed: bool = True,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self.spec = LatentSpec({"z": Field((4, 8, 8))}) if spec is None else spec
        self.conditions = ConditionSpec() if conditions is None else conditions
        self.name, channels, (high, wide) = grid_field(self.spec, (2,))
        if high % patch or wide % patch:
            raise ValueError(f"latents of {high}×{wide} don't split into patches of side {patch}")
        self.patch, self.grid = patch, (high // patch, wide // patch)
        self.noise = NoiseEmbedding(width, features)
        self.condition = ConditionEmbedder(self.conditions, width, axes=2)
        self.first = nn.Linear((channels + self.condition.overlaid) * patch**2, width)
        self.register_buffer("positions", grid_positions(*self.grid, width), persistent=False)
        context = self.condition.context
        self.blocks = nn.ModuleList(
            Block(width, heads, context=context, ratio=ratio, dropout=dropout, normed=normed)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero(nn.Linear(width, 2 * width))
        self.last = zero(nn.Linear(width, channels * patch**2))
        self.sites = block_sites(self.blocks, width)

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
        patches = pixel_unshuffle(self.condition.overlay(z, cond), self.patch)
        h = self.first(patches.flatten(2).transpose(1, 2)) + self.positions
        visit = visiting(guest, self.sites, embedding)
        for block in self.blocks:
            h = block(h, embedding, context=known.context, context_mask=known.mask, visit=visit)
            if visit is not None and visit.over:
                return x.zeros()
        out = self.last(modulate(self.norm(h), *self.modulation(embedding).chunk(2, -1)))
        out = pixel_shuffle(out.transpose(1, 2).unflatten(2, self.grid), self.patch)
        return x.replace(**{self.name: out.to(x.dtype)})
