"""The network that tells reconstructions from pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anylatent.core.nn.layers import GroupNorm


class PatchDiscriminator(nn.Module):
    """Pictures (B, C, H, W) to logits of overlapping patches, positive for real ones. 1611.07004.

    `layers` strided convolutions, each doubling `channels` up to eight times. Group norm, so that
    the logits of a picture don't depend on the others of its batch.
    """

    def __init__(
        self, shape: tuple[int, int, int] = (3, 32, 32), *, channels: int = 64, layers: int = 2
    ) -> None:
        super().__init__()
        if min(shape[1:]) < 2**layers:
            raise ValueError(f"pictures of shape {shape} are too small for {layers} halvings")
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        body: list[nn.Module] = [nn.Conv2d(shape[0], widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            conv = nn.Conv2d(widths[i - 1], widths[i], 4 if stride == 2 else 3, stride, 1)
            body += [conv, GroupNorm(widths[i]), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*body, nn.Conv2d(widths[-1], 1, 3, 1, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x.contiguous(memory_format=torch.channels_last))
        return logits
