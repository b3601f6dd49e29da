"""The network that tells reconstructions from pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anylatent.core.nn.adversary import patches


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

        def convolution(inputs: int, outputs: int, number: int) -> nn.Module:
            halves = number < layers
            return nn.Conv2d(inputs, outputs, 4 if halves else 3, 2 if halves else 1, 1)

        self.body = patches(shape[0], channels, layers, convolution)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x.contiguous(memory_format=torch.channels_last))
        return logits
