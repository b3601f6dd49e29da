"""Laws of unknown scale: how a decoder that only restores data becomes a law of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def of_any_scale(law: Callable[[float], Tensor], largest: float = 1.0, octaves: int = 12) -> Tensor:
    """log of the mean of a law over its scales, per sample: log Σ_k p(data | s_k)/K, shape (B,).

    `law` gives log p for one scale, (B,). The scales are `largest`·2^(-k/2), down by `octaves`,
    each as likely as the others before the data are seen. So nothing is fitted, and a sample
    costs at most log K = 3.2 nats more than at the best of them.
    """
    scales = [largest * 2 ** (-k / 2) for k in range(2 * octaves + 1)]
    return torch.stack([law(scale) for scale in scales]).logsumexp(0) - math.log(len(scales))
