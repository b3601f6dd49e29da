"""Residual blocks and resampling over one, two or three axes, for autoencoders and U-Nets."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from anylatent.core.nn.attention import Attention
from anylatent.core.nn.layers import AdaptiveGroupNorm, GroupNorm, convolution, zero
from anylatent.core.nn.sites import Site, Visit


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), (B, inputs, ...) to (B, outputs, ...).

    With an embedding (B, E) the second norm is adaptive, as in ADM (2105.05233). The last
    convolution starts at zero. `axes` is the number of axes after the channels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int | None = None,
        embedding: int | None = None,
        *,
        dropout: float = 0.0,
        axes: int = 2,
    ) -> None:
        super().__init__()
        outputs = inputs if outputs is None else outputs
        self.norm_in = GroupNorm(inputs)
        self.conv_in = convolution(inputs, outputs, axes=axes)
        self.adaptive = None if embedding is None else AdaptiveGroupNorm(outputs, embedding)
        self.norm_out = GroupNorm(outputs) if embedding is None else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero(convolution(outputs, outputs, axes=axes))
        same = inputs == outputs
        self.skip = nn.Identity() if same else convolution(inputs, outputs, 1, axes=axes)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.conv_in(silu(self.norm_in(x)))
        if self.adaptive is None:
            h = self.norm_out(h)
        elif embedding is None:
            raise ValueError("a block that was built with an embedding needs one")
        else:
            h = self.adaptive(h, embedding)
        out: Tensor = self.skip(x) + self.conv_out(self.dropout(silu(h)))
        return out


class AttentionBlock(nn.Module):
    """Self-attention over all positions of (B, C, ...), then cross-attention to a context.

    `context`: the width of context tokens (B, L, context), or None. Identity at initialisation.
    """

    def __init__(self, channels: int, heads: int = 4, context: int | None = None) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.attention = Attention(channels, heads)
        self.crossed = context is not None
        self.norm_cross = nn.LayerNorm(channels) if self.crossed else nn.Identity()
        self.cross = Attention(channels, heads, context) if self.crossed else nn.Identity()

    def sites(self, name: str, embedding: int = 0) -> list[Site]:
        """Tokens in the order of the positions, after each attention."""
        kinds = ("attention", "cross") if self.crossed else ("attention",)
        width = self.attention.query.in_features
        return [Site(f"{name}.{kind}", width, "tokens", True, embedding) for kind in kinds]

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        visit: Visit | None = None,
    ) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm(x).flatten(2).transpose(1, 2), visit=visit)
        tokens = tokens if visit is None else visit(tokens)
        if self.crossed:
            tokens = tokens + self.cross(self.norm_cross(tokens), context, mask, visit=visit)
            tokens = tokens if visit is None else visit(tokens)
        out: Tensor = tokens.transpose(1, 2).reshape(x.shape)
        return out


class Downsample(nn.Module):
    """A convolution with stride 2: every side n becomes ceil(n / 2)."""

    def __init__(self, inputs: int, outputs: int | None = None, *, axes: int = 2) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs or inputs, stride=2, axes=axes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Nearest neighbours to a given size, twice the sides by default, then a convolution."""

    def __init__(self, inputs: int, outputs: int | None = None, *, axes: int = 2) -> None:
        super().__init__()
        self.width = outputs or inputs
        self.conv = convolution(inputs, self.width, axes=axes)

    def forward(self, x: Tensor, size: tuple[int, ...] | None = None) -> Tensor:
        size = tuple(2 * n for n in x.shape[2:]) if size is None else size
        out: Tensor = self.conv(interpolate(x, size=size, mode="nearest"))
        return out
