"""A U-Net for latents on a grid: one field (C, L), (C, H, W) or (C, D, H, W).

The number of axes after the channels is the field's: waves have one, pictures and planes two,
volumes three. Convolutions and resampling run over them, attention over all positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.conditioning import ConditionEmbedder, Embedded
from anylatent.core.nn.embedding import FEATURES, Features, NoiseEmbedding
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import GroupNorm, convolution, zero
from anylatent.core.nn.residual import AttentionBlock, Downsample, ResBlock, Upsample
from anylatent.core.nn.sites import Site, Visit, visiting
from anylatent.core.registry import register

Levels: TypeAlias = list[tuple[int, bool]]
"""The channels of each level, finest first, and whether its positions attend to one another."""

MakeBlock: TypeAlias = Callable[[int, int, bool], "Block"]
"""Input channels, output channels and attention to a block."""

GRIDS = {1: "(C, L)", 2: "(C, H, W)", 3: "(C, D, H, W)"}
"""The shapes of fields on grids of so many axes, as they are told."""


@register("backbone", "unet", parts=FEATURES)
class UNet(Backbone):
    """ResNet blocks with adaptive group norm, attention at some resolutions. ADM (2105.05233).

    Over one, two or three axes, as the spec's one field has them: (C, L), (C, H, W), (C, D, H, W).
    Level i has `channels · multipliers[i]` channels and `blocks` blocks on the way down, one more
    on the way up. `attention` lists the resolutions (the longest side of the latent) where
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
        self.name, inputs, sides = grid_field(self.spec)
        self.axes = axes = len(sides)
        self.output = self.spec if output is None else output
        self.noise = NoiseEmbedding(embedding, features)
        self.condition = ConditionEmbedder(self.conditions, embedding, axes=axes)
        levels = _plan(max(sides), [channels * m for m in multipliers], attention, blocks)
        width = levels[0][0]
        block = partial(Block, embedding, self.condition.context, heads, dropout, axes)
        self.first = convolution(inputs + self.condition.overlaid, width, axes=axes)
        self._expand(levels, blocks + 1, block, self._contract(levels, blocks, block))
        self.norm = GroupNorm(width)
        outputs = grid_field(self.output, (axes,))[1]
        self.last = zero(convolution(width, outputs, axes=axes))
        self.sites = self._sites(width, embedding)
        # volumes gain nothing by channels last
        self.format = torch.channels_last if axes == 2 else torch.contiguous_format
        self.to(memory_format=self.format)  # type: ignore[call-overload]

    def _contract(self, levels: Levels, blocks: int, block: MakeBlock) -> list[int]:
        """Builds the way down and the middle; the widths of what it leaves for the way up."""
        self.down, self.lower = nn.ModuleList(), nn.ModuleList()
        width = levels[0][0]
        skips = [width]
        for i, (wide, attends) in enumerate(levels):
            if i:
                self.lower.append(Downsample(width, axes=self.axes))
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
                self.raise_.append(Upsample(width, axes=self.axes))

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
        z = self.condition.overlay(z, cond).contiguous(memory_format=self.format)
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
    """A ResNet block and, where it `attends`, attention to all positions and to the context."""

    def __init__(
        self,
        embedding: int,
        context: int | None,
        heads: int,
        dropout: float,
        axes: int,
        inputs: int,
        outputs: int,
        attends: bool,
    ) -> None:
        super().__init__()
        self.residual = ResBlock(inputs, outputs, embedding, dropout=dropout, axes=axes)
        self.attention = AttentionBlock(outputs, heads, context) if attends else None
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


def _plan(side: int, widths: Sequence[int], attention: Sequence[int], blocks: int) -> Levels:
    """The width of each level, and whether its positions attend, from the side of the first.

    Raises ValueError for no level, and for levels of other widths without blocks between them.
    """
    if not widths or (blocks < 1 and len(set(widths)) > 1):
        raise ValueError(
            f"need one of the multipliers at least, and blocks where they differ, got widths "
            f"{list(widths)} and blocks={blocks}"
        )
    levels = []
    for width in widths:
        levels.append((width, side in attention))
        side = (side + 1) // 2
    return levels


def grid_field(spec: LatentSpec, axes: Sequence[int] = (1, 2, 3)) -> tuple[str, int, Sequence[int]]:
    """The name, the channels and the sides of a spec's only field, a grid with so many axes.

    Raises ValueError for other fields: of variable length, centred, or with channels that come not
    first.
    """
    if len(spec.fields) == 1:
        ((name, field),) = spec.fields.items()
        loose = field.variable or field.centred or field.channels not in (None, 0)
        if len(field.rest) in axes and not loose:
            return name, int(field.shape[0] or 0), field.rest
    allowed = " or ".join(GRIDS[n] for n in axes)
    raise ValueError(
        f"this backbone needs latents of one field of shape {allowed}, of fixed size with channels "
        f"first, got {spec}: leave backbone out to take the modality's own"
    )


def _gone(h: Tensor, visit: Visit | None) -> Tensor:
    return h if visit is None else visit(h)


def _blocks(level: nn.ModuleList) -> list[Block]:
    return [block for block in level if isinstance(block, Block)]


def _levels(levels: nn.ModuleList) -> list[nn.ModuleList]:
    return [level for level in levels if isinstance(level, nn.ModuleList)]
