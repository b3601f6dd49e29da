"""In which precision posteriors are kept: half where that changes nothing that could be measured.

A Gaussian whose mean moves by e and whose log standard deviation by d is, for small ones,

    KL = (e / std)² / 2 + d²

nats per number from where it was. Float16 rounds numbers of size 1 by 3e-4 (rms), which is nothing
beside a deviation of .1 and much beside one of .001: it depends on what the encoder is sure of.
"""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 1e-4
"""Nats per number that the rounding of a posterior may cost, on average over a batch."""


def divergence(mean: Tensor, log_std: Tensor) -> float:
    """Nats per number from float16 to the posterior itself; infinite where float16 overflows."""
    if mean.numel() == 0:
        return 0.0
    moved, other = (_rounding(x) for x in (mean, log_std))
    found = 0.5 * (moved / log_std.double().exp()).square() + other.square()
    return float(found.mean().nan_to_num(nan=float("inf")))


def lossless(x: Tensor) -> bool:
    """Whether float16 has exactly these numbers."""
    return x.dtype == torch.float32 and torch.equal(x.half().float(), x)


def compact(mean: Tensor, log_std: Tensor | None, centred: bool) -> tuple[Tensor, Tensor | None]:
    """A posterior's parameters as they are kept: in float16 or as they are.

    A point mass is kept exactly, and so is a centred field, whose rounded mean would not be zero.
    """
    if log_std is None:
        return (mean.half() if lossless(mean) else mean), None
    if centred or mean.dtype != torch.float32 or divergence(mean, log_std) > LIMIT:
        return mean, log_std
    return mean.half(), log_std.half()


def _rounding(x: Tensor) -> Tensor:
    return x.half().double() - x.double()
