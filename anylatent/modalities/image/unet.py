"""A U-Net for latents of one field (C, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.conditioning import ConditionEmbedder, Embedded
from anylatent.core.nn.embedding import Features, NoiseEmbedding
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import GroupNorm, convolution, zero
from anylatent.core.nn.residual import AttentionBlock, Downsample, ResBlock, Upsample
from anylatent.core.nn.sites import Site, Visit, visiting

Levels: TypeAlias = list[tuple[int, bool]]
"""The channels of each level, finest first, and whether its positions attend to one another."""

MakeBlock: TypeAlias = Callable[[int, int, bool], "Block"]
"""Input channels, output channels and attention to a block."""


class UNet(Backbone):
    """ResNet blocks with adaptive group norm, attention at some resolutions. ADM (2105.05233).

    Level i has `channels · multipliers[i]` channels and `blocks` blocks on the way down, one more
    on the way up. `attention` lists the resolutions (the longer side in latent pixels) where
    positions attend to one another and to the condition's tokens; the middle always does. Maps are
    concatenated to the input. Any size works: a level of side n has one of ceil(n / 2) below it.
    The output is zero at initialisation, of the spec `output` (by default that of the input).
    `features` are those of the noise level.
    """

    def __init__(
        self,
        spec: LatentSpec | None = None,
        conditions: ConditionSpec | None = None,
        output: LatentSpec | None = None,
        *,
        channels: int = 96,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 2,
        attention: Sequence[int] = (8, 4),
        heads: int = 4,
        embedding: int = 256,
        dropout: float = 0.0,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self.spec = LatentSpec({"z": Field((4, 8, 8))}) if spec is None else spec
        self.conditions = ConditionSpec() if conditions is None else conditions
        self.name, size = planar_field(self.spec)
        self.output = self.spec if output is None else output
        self.noise = NoiseEmbedding(embedding, features)
        self.condition = ConditionEmbedder(self.conditions, embedding, axes=2)
        levels = _plan(max(size[1:]), [channels * m for m in multipliers], attention)
        width = levels[0][0]

        def block(inputs: int, width: int, attends: bool) -> Block:
            context = self.condition.context
            return Block(inputs, width, embedding, context, heads if attends else 0, dropout)

        self.first = convolution(size[0] + self.condition.overlaid, width)
        self._expand(levels, blocks + 1, block, self._contract(levels, blocks, block))
        self.norm = GroupNorm(width)
        self.last = zero(convolution(width, planar_field(self.output)[1][0]))
        self.sites = self._sites(width, embedding)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _contract(self, levels: Levels, blocks: int, block: MakeBlock) -> list[int]:
        """Builds the way down and the middle; the widths of what it leaves for the way up."""
        self.down, self.lower = nn.ModuleList(), nn.ModuleList()
        width = levels[0][0]
        skips = [width]
        for i, (wide, attends) in enumerate(levels):
            if i:
                self.lower.append(Downsample(width))
                skips.append(width)
            level = nn.ModuleList()
            for _ in range(blocks):
                level.append(block(width, wide, attends))
                width = wide
                skips.append(width)
            self.down.append(level)
        self.middle = nn.ModuleList([block(width, width, True), block(width, width, False)])
        return skips

    def _expand(self, levels: Levels, blocks: int, block: MakeBlock, skips: list[int]) -> None:
        """Builds the way up."""
        self.up, self.raise_ = nn.ModuleList(), nn.ModuleList()
        width = levels[-1][0]
        for i, (wide, attends) in reversed(list(enumerate(levels))):
            level = nn.ModuleList()
            for _ in range(blocks):
                level.append(block(width + skips.pop(), wide, attends))
                width = wide
            self.up.append(level)
            if i:
                self.raise_.append(Upsample(width))

    def _sites(self, width: int, embedding: int) -> list[Site]:
        """In the order of `_pass`; on the way up also what comes over from the way down."""
        found = [Site("first", width, "map", embedding=embedding)]
        skips = [width]
        for i, level in enumerate(_levels(self.down)):
            if i:
                width = skips[-1]
                found.append(Site(f"down.{i}.lower", width, "map", embedding=embedding))
                skips.append(width)
            for j, block in enumerate(_blocks(level)):
                found += block.sites(f"down.{i}.{j}", embedding)
                skips.append(block.width)
        for j, block in enumerate(_blocks(self.middle)):
            found += block.sites(f"middle.{j}", embedding)
        for i, level in enumerate(_levels(self.up)):
            if i:
                found.append(Site(f"up.{i}.raise", width, "map", embedding=embedding))
            for j, block in enumerate(_blocks(level)):
                found.append(Site(f"up.{i}.{j}.skip", skips.pop(), "map", embedding=embedding))
                found += block.sites(f"up.{i}.{j}", embedding)
                width = block.width
        return found

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
        z = self.condition.overlay(z, cond).contiguous(memory_format=torch.channels_last)
        visit = visiting(guest, self.sites, embedding)
        h = self._pass(self.first(z), embedding, known, visit)
        if h is None:
            return x.zeros()
        out: Tensor = self.last(silu(self.norm(h)))
        return Latent({self.name: out.to(x.dtype)}, x.masks, self.output).project()

    def _pass(
        self, h: Tensor, embedding: Tensor, known: Embedded, visit: Visit | None
    ) -> Tensor | None:
        """All blocks; None where the guest wants no more of them."""
        skips = [h := _gone(h, visit)]
        for i, level in enumerate(_levels(self.down)):
            if i:
                skips.append(h := _gone(self.lower[i - 1](h), visit))
            for block in level:
                skips.append(h := block(h, embedding, known, visit))
            if visit is not None and visit.over:
                return None
        for block in self.middle:
            h = block(h, embedding, known, visit)
        for i, level in enumerate(_levels(self.up)):
            if i:
                h = _gone(self.raise_[i - 1](h, tuple(skips[-1].shape[2:])), visit)
            for block in level:
                joined = torch.cat((h, _gone(skips.pop(), visit)), 1)
                h = block(joined, embedding, known, visit)
            if visit is not None and visit.over:
                return None
        return h


class Block(nn.Module):
    """A ResNet block and, with heads > 0, attention to all positions and to the context."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        context: int | None,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.residual = ResBlock(inputs, outputs, embedding, dropout=dropout)
        self.attention = AttentionBlock(outputs, heads, context) if heads else None
        self.width = outputs

    def sites(self, name: str, embedding: int) -> list[Site]:
        found = [Site(f"{name}.residual", self.width, "map", embedding=embedding)]
        return found + ([] if self.attention is None else self.attention.sites(name, embedding))

    def forward(
        self, x: Tensor, embedding: Tensor, known: Embedded, visit: Visit | None = None
    ) -> Tensor:
        x = _gone(self.residual(x, embedding), visit)
        if self.attention is not None:
            x = self.attention(x, known.context, known.mask, visit)
        return x


def _plan(side: int, widths: Sequence[int], attention: Sequence[int]) -> Levels:
    """The width of each level, and whether its positions attend, from the side of the first."""
    levels = []
    for width in widths:
        levels.append((width, side in attention))
        side = (side + 1) // 2
    return levels


def planar_field(spec: LatentSpec) -> tuple[str, tuple[int, int, int]]:
    """The name and the shape (C, H, W) of a spec's only field."""
    if len(spec.fields) == 1:
        ((name, field),) = spec.fields.items()
        if len(field.shape) == 3 and not field.variable:
            channels, height, width = (int(n or 0) for n in field.shape)
            return name, (channels, height, width)
    raise ValueError(f"this backbone needs latents of one field of shape (C, H, W), got {spec}")


def _gone(h: Tensor, visit: Visit | None) -> Tensor:
    return h if visit is None else visit(h)


def _blocks(level: nn.ModuleList) -> list[Block]:
    return [block for block in level if isinstance(block, Block)]


def _levels(levels: nn.ModuleList) -> list[nn.ModuleList]:
    return [level for level in levels if isinstance(level, nn.ModuleList)]
