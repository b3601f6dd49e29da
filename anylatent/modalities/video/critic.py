"""What tells decoded clips from real ones: a network that sees frames in a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.nn.adversary import adaptive_weight, hinge
from anylatent.core.nn.layers import GroupNorm
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
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        body: list[nn.Module] = [_halving(shape[0], widths[0], 1), nn.LeakyReLU(0.2)]
        for i in range(1, layers + 1):
            conv = (
                _halving(widths[i - 1], widths[i], 2)
                if i < layers
                else nn.Conv3d(widths[i - 1], widths[i], 3, 1, 1)
            )
            body += [conv, GroupNorm(widths[i]), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*body, nn.Conv3d(widths[-1], 1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x.transpose(1, 2))
        return logits


def _halving(inputs: int, outputs: int, stride: int) -> nn.Conv3d:
    """Halves height and width, and the frames with a stride of 2."""
    return nn.Conv3d(inputs, outputs, (3, 4, 4), (stride, 2, 2), (1, 1, 1))


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
        fooled = -self.network(_clips(output, mask)).flatten(1).mean(1)
        total = torch.stack([term.mean() for term in terms.values()]).sum()
        ratio = adaptive_weight(total, fooled.mean(), output)
        return {**terms, "adversarial": self.weight * ratio * fooled}

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
