"""Adversarial training of decoders: hinge losses and VQGAN's adaptive weight (2012.09841)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from anylatent.core.nn.layers import GroupNorm
from anylatent.core.registry import group, register


def hinge(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The discriminator's losses on logits (B, ...) of data and reconstructions, each (B,).

    max(0, 1 − real) / 2 and max(0, 1 + fake) / 2. 1705.02894.
    """
    return _mean(relu(1 - real)) / 2, _mean(relu(1 + fake)) / 2


def adaptive_weight(
    reconstruction: Tensor, adversarial: Tensor, last: Tensor, most: float = 1e4
) -> Tensor:
    """‖∂reconstruction/∂last‖ / ‖∂adversarial/∂last‖, shape (), without gradient.

    Both losses are scalars and `last` is the weight of the decoder's last layer or, where that does
    not learn, what it returns. Without a graph
    (validation) there is no ratio, and the weight is 1.
    """
    if not (reconstruction.requires_grad and adversarial.requires_grad and last.requires_grad):
        return torch.ones((), device=last.device)
    (first,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (second,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    ratio: Tensor = first.norm() / (second.norm() + 1e-6)
    return ratio.clamp(0, most).detach()


def fooling(logits: Tensor, reconstruction: Tensor, last: Tensor, weight: float) -> Tensor:
    """The decoder's term, (B,), of the logits (B, ...) of reconstructions, `weight` times as strong
    as the scalar loss `reconstruction`; see `adaptive_weight`."""
    fooled: Tensor = -logits.flatten(1).mean(1)
    return weight * adaptive_weight(reconstruction, fooled.mean(), last) * fooled


def patches(
    inputs: int, channels: int, layers: int, convolution: Callable[[int, int, int], nn.Module]
) -> nn.Sequential:
    """Logits of overlapping patches (1611.07004): convolutions that each double `channels` up to
    eight times, with group norm, so that those of a sample don't depend on the others of its batch.

    `convolution` makes number 0, 1, ... of them, for so many inputs and outputs: `layers` that
    halve, one that does not, and the last, which makes the logits.
    """
    widths = [inputs, *(channels * min(2**i, 8) for i in range(layers + 1))]
    body: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        norm = [GroupNorm(after)] if number else []
        body += [convolution(before, after, number), *norm, nn.LeakyReLU(0.2)]
    return nn.Sequential(*body, convolution(widths[-1], 1, layers + 1))


def _mean(x: Tensor) -> Tensor:
    return x.float().flatten(1).mean(1) if x.dtype != torch.float64 else x.flatten(1).mean(1)


group("perceptual", nn.Module)
group("adversary", nn.Module, facts=True)


@register("perceptual", "none")
def no_perceptual() -> None:
    """No perceptual loss."""


@register("adversary", "none")
def no_adversary() -> None:
    """No adversarial loss."""
