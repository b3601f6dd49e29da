"""How near latents are to the noise that samples start from."""

from __future__ import annotations

import torch
from torch import Tensor

from anylatent.core.latents import Latent


def normality(noise: Latent) -> dict[str, float]:
    """How near latents are to a standard normal law, of each field where there are several.

    `deviation`, per degree of freedom; `mean`; `kurtosis`, the excess; `correlation` of neighbours
    along that axis on which it is largest. Noise of inverted data keeps some of their structure
    (2302.03027): it is correlated where a drawn one's figures are 0, 1 and 0.
    """
    several = len(noise.parts) > 1
    figures: dict[str, float] = {}
    for name in noise.parts:
        part, end = noise.take([name]), f"_{name}" if several else ""
        figures |= {f"{key}{end}": value for key, value in _shape(part, name).items()}
    return figures


def _shape(part: Latent, name: str) -> dict[str, float]:
    x, mask = part[name].double(), part.masks.get(name)
    valid = torch.ones(x.shape[:2]) if mask is None else mask.to(x)
    weight = valid.reshape(*x.shape[:2], *[1] * (x.ndim - 2)).to(x).expand_as(x)
    mean = (x * weight).sum() / weight.sum()
    x = (x - mean) * weight
    variance = (x**2).sum() / weight.sum()
    neighbours = [_neighbours(x, weight, axis) / variance for axis in range(1, x.ndim)]
    return {
        "mean": float(mean),
        "deviation": float((part.dot(part).sum() / part.dim.sum()).sqrt()),
        "kurtosis": float((x**4).sum() / weight.sum() / variance**2 - 3),
        "correlation": float(max(neighbours, key=lambda c: float(c.abs()))),
    }


def _neighbours(x: Tensor, weight: Tensor, axis: int) -> Tensor:
    """The mean product of entries beside one another along an axis; 0 where there are none."""
    count = x.shape[axis] - 1
    product, pairs = (
        (z.narrow(axis, 0, count) * z.narrow(axis, 1, count)).sum() for z in (x, weight)
    )
    return product / pairs.clamp(min=1)
