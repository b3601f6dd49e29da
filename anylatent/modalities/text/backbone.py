"""The denoising network of sequences: a bidirectional transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.conditioning import ConditionEmbedder
from anylatent.core.nn.embedding import Features, NoiseEmbedding, SinusoidalFeatures
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import modulate, outer, zero
from anylatent.core.nn.rotary import head_size, rotation
from anylatent.core.nn.sites import visiting
from anylatent.core.nn.transformer import Block, block_sites

PLACES = 32
"""Features of each distance to an end."""

SPEC = LatentSpec({"z": Field((None, 32))})


class Transformer(Backbone):
    """Attention over all entries of a sequence, with rotary positions, steered by adaLN-zero.

    For latents of one field (None, D) or (L, D); padding is seen by no entry. `depth` blocks of
    attention (2104.09864), cross-attention if the condition has tokens, and a network `ratio` times
    as wide, whose norms follow noise level and condition (2212.09748). Rotary positions tell how
    far apart two entries are; features of the distances to both ends, which come with the input,
    tell where in its sequence an entry is, and how long that is. Entries may have noise levels of
    their own, c_noise (B, T). `output` is the spec of what it
    returns, such as logits `(None, V)`; that of its input by default. `features` are those of the
    noise level. Zero at initialisation.
    """

    per_entry = True

    def __init__(
        self,
        spec: LatentSpec | None = None,
        conditions: ConditionSpec | None = None,
        output: LatentSpec | None = None,
        *,
        width: int = 192,
        depth: int = 4,
        heads: int = 4,
        ratio: float = 4.0,
        dropout: float = 0.0,
        normed: bool = True,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self.spec = SPEC if spec is None else spec
        self.conditions = ConditionSpec() if conditions is None else conditions
        self.output = self.spec if output is None else output
        self.name, inputs, outputs = _sizes(self.spec, self.output)
        self.size = head_size(width, heads)
        self.noise = NoiseEmbedding(width, features)
        self.condition = ConditionEmbedder(self.conditions, width, entries=True)
        self.first = nn.Linear(inputs + self.condition.overlaid, width)
        self.places = SinusoidalFeatures(PLACES, longest=1000.0, shortest=4.0)
        self.place = nn.Linear(2 * PLACES, width)
        context = self.condition.context
        self.blocks = nn.ModuleList(
            Block(width, heads, context=context, ratio=ratio, dropout=dropout, normed=normed)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero(nn.Linear(width, 2 * width))
        self.last = outer(zero(nn.Linear(width, outputs)))
        self.sites = block_sites(self.blocks, width)

    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        z, mask = x[self.name], None if x.full else x.masks.get(self.name)
        known, level = self.condition(cond, z), self.noise(self.levels(c_noise, x))
        embedding = silu(known.steering(level, mask))
        h = self.first(_clean(self.condition.overlay(z, cond, axis=2), mask))
        h = h + self.place(self.places(_distances(z, mask)).flatten(2).to(h.dtype))
        turn = rotation(z.shape[1], self.size, h)
        visit = visiting(guest, self.sites, embedding)
        told = {"mask": mask, "turn": turn, "context": known.context, "context_mask": known.mask}
        for block in self.blocks:
            h = block(h, embedding, **told, visit=visit)
            if visit is not None and visit.over:
                return Latent({self.name: z}, x.masks, self.output).zeros()
        out = self.last(modulate(self.norm(h), *self.modulation(embedding).chunk(2, -1)))
        return Latent({self.name: out.to(x.dtype)}, x.masks, self.output).project()


def _distances(z: Tensor, mask: Tensor | None) -> Tensor:
    """How many entries of its sequence lie before and after each entry of z: (B, L, C), (B, L, 2);
    below 0 in the padding."""
    place = torch.arange(z.shape[1], device=z.device, dtype=torch.float32).expand(z.shape[:2])
    count = z.shape[1] if mask is None else mask.sum(1, keepdim=True)
    return torch.stack([place, count - 1 - place], -1)


def _clean(x: Tensor, mask: Tensor | None) -> Tensor:
    """x: (B, L, C) with zeros in the padding, where anything may stand."""
    return x if mask is None else torch.where(mask[..., None], x, 0)


def _sizes(spec: LatentSpec, output: LatentSpec) -> tuple[str, int, int]:
    """The field's name, and its numbers per entry in the input and in the output."""
    fields, results = list(spec.fields.items()), list(output.fields.items())
    if len(fields) != 1 or len(fields[0][1].shape) != 2:
        raise ValueError(
            f"backbone=transformer takes latents of one field (None, D) or (L, D), got {spec}: use "
            "an autoencoder that makes sequences, or another backbone"
        )
    (name, field), (other, result) = fields[0], results[0]
    if len(results) != 1 or other != name or result.shape[:1] != field.shape[:1]:
        raise ValueError(f"the output of a transformer on {spec} has its entries, got {output}")
    if len(result.shape) != 2:
        raise ValueError(f"the output of a transformer is a vector per entry, got {output}")
    return name, field.rest[0], result.rest[0]
