"""Layers over time within a network of single frames (Align Your Latents, 2304.08818).

A guest of the network of frames: after each layer over space one over time, which sees the same
place in all frames of a clip,

    h ← h + gate · layer(h)

so that with a gate of 0, at which it starts, the network does to each frame what it did alone. In
the paper's words h ← α·h + (1 − α)·(h + layer(h)), with α = 1 - gate. The layers themselves do not
start at zero, else no gradient would ever reach gate or layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, silu

from anylatent.core.latents import Condition, Latent
from anylatent.core.nn.attention import Attention
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import GroupNorm
from anylatent.core.nn.rotary import head_size, rotation
from anylatent.core.nn.sites import Site

PASSING = ("first", "lower", "raise", "skip")
"""Sites of resampling, and of what comes over from elsewhere: no layers over space."""


class Temporal(Guest):
    """Layers over time for the sites of a network of frames: attention where that attends, and
    convolutions over `kernel` frames after its other layers, `heads` heads each; with no heads
    convolutions everywhere.

    Attention has rotary positions, so that clips may have any length. `gate` is how much of them
    enters at the start. `reach`: how many frames before and after it a frame depends on; None where
    that is all of them.
    """

    def __init__(
        self, sites: Sequence[Site], heads: int = 4, kernel: int = 3, gate: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for site in _chosen(sites):
            layer: OverTime = (
                AttentionOverTime(site.width, heads, gate)
                if site.attends and heads
                else ConvolutionOverTime(site.width, kernel, gate)
            )
            self.layers[_key(site)] = layer
        if not self.layers:
            raise ValueError("the network of frames has no sites where layers over time could be")
        attends = any(isinstance(layer, AttentionOverTime) for layer in self.layers.values())
        self.reach = None if attends else len(self.layers) * (kernel // 2)

    def begin(self, x: Latent, c_noise: Tensor, cond: Condition | None) -> Guest:
        """x: the clips, (B, T, ...), whose frames the network is given one by one."""
        mask = None if x.full else next(iter(x.masks.values()), None)
        return self.of(x.batch, mask)

    def of(self, batch: int, mask: Tensor | None) -> Guest:
        """The guest of one call, on the frames of so many clips; `mask` (B, T) are those that there
        are, None for all."""
        return _OfClips(self.layers, batch, mask)


class _OfClips(Guest):
    """The layers in one call, on frames of so many clips; `mask` (B, T): those that there are."""

    def __init__(self, layers: nn.ModuleDict, batch: int, mask: Tensor | None) -> None:
        super().__init__()
        self.layers, self.batch, self.mask = layers, batch, mask

    def after(self, site: Site, h: Tensor, embedding: Tensor | None, mask: Tensor | None) -> Tensor:
        key = _key(site)
        if key not in self.layers:
            return h
        layer = self.layers[key]
        assert isinstance(layer, OverTime)
        if site.layout == "map":
            return layer.of_maps(h, self.batch, self.mask)
        return layer.of_tokens(h, self.batch, self.mask)


class OverTime(nn.Module):
    """A layer over time, of maps (B·T, C, H, W) or of tokens (B·T, N, C)."""

    def __init__(self, width: int, gate: float) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((width,), float(gate)))

    def of_maps(self, h: Tensor, batch: int, mask: Tensor | None) -> Tensor:
        tokens = self.of_tokens(h.flatten(2).transpose(1, 2), batch, mask)
        return tokens.transpose(1, 2).reshape(h.shape)

    def of_tokens(self, h: Tensor, batch: int, mask: Tensor | None) -> Tensor:
        raise NotImplementedError


class ConvolutionOverTime(OverTime):
    """silu, and a convolution over `kernel` frames at each place, of normalised numbers."""

    def __init__(self, width: int, kernel: int = 3, gate: float = 0.0) -> None:
        super().__init__(width, gate)
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel={kernel}: an odd number of frames, so that one is the middle")
        self.kernel, self.norm = kernel, GroupNorm(width)
        self.conv = nn.Conv3d(width, width, (kernel, 1, 1))

    def of_maps(self, h: Tensor, batch: int, mask: Tensor | None) -> Tensor:
        z = silu(self.norm(h))
        beside = torch.cat(self._shifted(z, batch, mask), 1)
        weight = self.conv.weight[..., 0, 0].permute(0, 2, 1).flatten(1)  # kernel, then channels
        out = conv2d(beside, weight[..., None, None].to(z.dtype), self.conv.bias)
        return h + self.gate[:, None, None] * out

    def of_tokens(self, h: Tensor, batch: int, mask: Tensor | None) -> Tensor:
        maps = h.transpose(1, 2)[..., None]
        return self.of_maps(maps, batch, mask)[..., 0].transpose(1, 2)

    def _shifted(self, z: Tensor, batch: int, mask: Tensor | None) -> list[Tensor]:
        """The frames before, of and after each, zero where there are none."""
        clips = torch.unflatten(z, 0, (batch, -1))
        if mask is not None:
            clips = torch.where(mask.view(*mask.shape, *[1] * (clips.ndim - 2)), clips, 0)
        half, length = self.kernel // 2, clips.shape[1]
        room = clips.new_zeros(batch, half, *clips.shape[2:])
        padded = torch.cat((room, clips, room), 1) if half else clips
        shifted = [padded[:, k : k + length] for k in range(self.kernel)]
        return [one.flatten(0, 1).contiguous(memory_format=_format(z)) for one in shifted]


class AttentionOverTime(OverTime):
    """Each place attends to itself in all frames of its clip."""

    def __init__(self, width: int, heads: int = 4, gate: float = 0.0) -> None:
        super().__init__(width, gate)
        self.size = head_size(width, heads)
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, normed=True, zeroed=False)

    def of_tokens(self, h: Tensor, batch: int, mask: Tensor | None) -> Tensor:
        places = h.shape[1]
        clips = torch.unflatten(self.norm(h), 0, (batch, -1))
        rows = clips.transpose(1, 2).flatten(0, 1)
        seen = None if mask is None else mask.repeat_interleave(places, 0)
        turn = rotation(rows.shape[1], self.size, rows)
        found = self.attention(rows, None, seen, turn=turn)
        back = torch.unflatten(found, 0, (batch, places)).transpose(1, 2).flatten(0, 1)
        out: Tensor = h + self.gate * back
        return out


def _chosen(sites: Sequence[Site]) -> list[Site]:
    """The sites that get a layer: of several that attend in a row, to one another and to a context,
    the last."""
    found = list[Site]()
    for site, after in zip_longest(sites, sites[1:]):
        passing = site.name.rpartition(".")[2] in PASSING
        followed = site.attends and after is not None and after.attends
        if not passing and not followed:
            found.append(site)
    return found


def _key(site: Site) -> str:
    return site.name.replace(".", "_")


def _format(x: Tensor) -> torch.memory_format:
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
