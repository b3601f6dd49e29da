"""What tells decoded clips from real ones: a network that sees frames in a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.nn.adversary import fooling, hinge, patches
from anylatent.core.registry import Maker
from anylatent.core.support.files import UserError


class PatchDiscriminator3d(nn.Module):
    """Clips (B, T, C, H, W) to logits of overlapping patches of space and time, positive for real
    ones.

    `layers` strided convolutions, each doubling `channels` up to eight times, over three frames
    each; the later ones halve the frames, too. Group norm, so that the logits of a clip don't
    depend on the others of its batch. Align Your Latents (2304.08818), after 1611.07004.
    """

    def __init__(
        self, shape: tuple[int, int, int] = (3, 32, 32), *, channels: int = 32, layers: int = 2
    ) -> None:
        super().__init__()
        if min(shape[1:]) < 2**layers:
            raise ValueError(f"frames of shape {shape} are too small for {layers} halvings")

        def convolution(inputs: int, outputs: int, number: int) -> nn.Module:
            if number >= layers:
                return nn.Conv3d(inputs, outputs, 3, 1, 1)
            over_time = 2 if number else 1
            return nn.Conv3d(inputs, outputs, (3, 4, 4), (over_time, 2, 2), (1, 1, 1))

        self.body = patches(shape[0], channels, layers, convolution)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x.transpose(1, 2))
        return logits


class Critic(nn.Module):
    """The adversarial loss of clips, from step `start` on, `weight` times as strong as the others
    at the most. The network is made by `equip`; without one there is no such loss."""

    def __init__(self, make: Maker[nn.Module | None] | None, weight: float, start: int) -> None:
        super().__init__()
        if not weight >= 0:
            raise UserError(f"autoencoder.adversary_weight={weight}: 0 or more is wanted")
        self.make, self.weight, self.start = make, weight, start
        self.network: nn.Module | None = None

    def equip(self) -> None:
        self.network = None if self.make is None else self.make()

    def judged(
        self, terms: dict[str, Tensor], output: Any, mask: Tensor, step: int
    ) -> dict[str, Tensor]:
        """The terms of a loss, (B,) or () each, with the adversarial one; `output` are the decoded
        frames (B·T, C, H, W)."""
        if self.network is None or step < self.start:
            return terms
        total = torch.stack([term.mean() for term in terms.values()]).sum()
        logits = self.network(_clips(output, mask))
        return {**terms, "adversarial": fooling(logits, total, output, self.weight)}

    def loss(self, video: Tensor, output: Any, mask: Tensor, step: int) -> dict[str, Tensor]:
        """The network's own terms, (B,) each."""
        if self.network is None or step < self.start:
            return {}
        real, fake = self.network(video), self.network(_clips(output.detach(), mask))
        return dict(zip(("real", "fake"), hinge(real, fake), strict=True))


def _clips(output: Any, mask: Tensor) -> Tensor:
    """Decoded frames as clips, 0 at padding as in the data."""
    if not isinstance(output, Tensor):
        raise UserError(
            f"autoencoder.adversary judges pictures, and autoencoder.image has made "
            f"{type(output).__name__}: leave it out"
        )
    clips = torch.unflatten(output, 0, tuple(mask.shape))
    return torch.where(mask[..., None, None, None], clips, 0)
