"""How large samples are: drawn, asked for, and what that costs in nats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Latent, LatentSpec, Noise


class Sizes(ABC):
    """The law of the sizes of samples, such as numbers of atoms or tokens.

    `asks` names the conditions in which a user may ask for them, `cond.NAME`.
    """

    asks: Sequence[str] = ()

    @abstractmethod
    def blank(self, spec: LatentSpec, noise: Noise, cond: Mapping[str, Any]) -> Latent:
        """The zero latent that sampling starts from, one row for each seed of the noise: of sizes
        that are asked for, or drawn. Raises UserError for sizes that can't be had."""

    @abstractmethod
    def largest(self, spec: LatentSpec, samples: int, cond: Mapping[str, Any]) -> Latent:
        """The zero latent of the largest sizes that samples may have, for a generator that ends
        them itself."""

    @abstractmethod
    def nats(self, x0: Latent) -> Tensor:
        """-log p of the sizes of samples, (B,), by the law that `blank` draws them from."""


class FixedSizes(Sizes):
    """One size for all, that of the spec, which is certain."""

    def blank(self, spec: LatentSpec, noise: Noise, cond: Mapping[str, Any]) -> Latent:
        return spec.blank(noise.batch)

    def largest(self, spec: LatentSpec, samples: int, cond: Mapping[str, Any]) -> Latent:
        return spec.blank(samples)

    def nats(self, x0: Latent) -> Tensor:
        return torch.zeros(x0.batch)


def histogram_nats(x0: Latent, histogram: Iterable[Sequence[int]], most: int) -> Tensor:
    """-log p of the sizes of samples, (B,), float64, on the CPU: by pairs of a size and its count,
    with one more of each size from 1 to `most`; infinite above."""
    counts = torch.ones(most + 1, dtype=torch.float64)
    counts[0] = 0
    for size, count in histogram:
        counts[size] += count
    sizes = x0.lengths(next(iter(x0.spec.fields))).cpu()
    known = torch.where(sizes <= most, counts[sizes.clamp(max=most)], 0)
    return counts.sum().log() - known.log()
