"""Randomness with one generator per sample.

Sample i of a batch draws the same numbers whatever its neighbours, its padding, the device and
the precision: its generator depends on its own seed alone, draws at the sample's own length, in
float32 on the CPU. Every stochastic part of the package draws from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from anylatent.core.latent import Latent

Seed: TypeAlias = int | tuple[int, ...]


@lru_cache(maxsize=1024)
def _hash(*key: int) -> int:
    text = ",".join(str(int(part)) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _generator(seed: Seed) -> torch.Generator:
    """The CPU generator keeps 32 bits of a seed, so keys are hashed to 32 bits.

    The last number of a tuple enters by an odd multiplier, a bijection: the samples
    (seed, 0), (seed, 1), ... never collide with one another.
    """
    *run, index = seed if isinstance(seed, tuple) else (seed,)
    bits = (_hash(*run) + int(index) * 0x9E3779B1) if run else _hash(int(index))
    return torch.Generator().manual_seed(bits % 2**32)


class Noise:
    """A source of randomness for a batch; successive draws differ, equal seeds repeat them.

    `seeds`: one int, or tuple of ints, per sample. `shared` seeds the draws that a batch has in
    common (low-discrepancy times); `positions` are the samples' places in the joint batch of all
    processes.
    """

    def __init__(
        self, seeds: Sequence[Seed], *, shared: Seed = 0, positions: Sequence[int] | None = None
    ) -> None:
        if len(seeds) == 0:
            raise ValueError("Noise needs one seed per sample, got none")
        self.seeds = [
            tuple(seed) if isinstance(seed, (tuple, list)) else int(seed) for seed in seeds
        ]
        self.positions = torch.as_tensor(
            range(len(self.seeds)) if positions is None else list(positions), dtype=torch.float64
        )
        self._generators = [_generator(seed) for seed in self.seeds]
        self._shared = _generator(shared)

    @classmethod
    def of(cls, seed: Seed, samples: int | Sequence[int]) -> Noise:
        """Noise for samples 0 … n − 1 (or the given positions) of the run with this seed."""
        positions = range(samples) if isinstance(samples, int) else samples
        key = seed if isinstance(seed, tuple) else (seed,)
        seeds = [(*key, int(i)) for i in positions]
        return cls(seeds, shared=(*key, -1), positions=list(positions))

    @property
    def batch(self) -> int:
        return len(self.seeds)

    def like(self, latent: Latent) -> Latent:
        """The next standard normal latent on the subspace of `latent`, in its dtype."""
        if latent.batch != self.batch:
            raise ValueError(f"noise for {self.batch} samples, but a latent of {latent.batch}")
        parts = {name: self._draw(x, latent.masks.get(name)) for name, x in latent.parts.items()}
        return Latent(parts, latent.masks, latent.spec).project()

    def _draw(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return self.normal(*x.shape[1:]).to(x)
        valid, rest = mask.cpu(), x.shape[2:]
        rows = [
            torch.randn(size, *rest, generator=generator)
            for size, generator in zip(valid.sum(1).tolist(), self._generators, strict=True)
        ]
        drawn = torch.zeros(x.shape)
        drawn[valid] = torch.cat(rows)
        return drawn.to(x)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, shape (B, *shape), float32 on the CPU."""
        return self._fill(shape, lambda row, generator: row.normal_(generator=generator))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), shape (B, *shape), float64 on the CPU."""
        fill = lambda row, generator: row.uniform_(generator=generator)  # noqa: E731
        return self._fill(shape, fill, torch.float64)

    def shared_uniform(self) -> Tensor:
        """One uniform number that the whole joint batch has in common, shape ()."""
        return torch.rand((), generator=self._shared, dtype=torch.float64)

    def _fill(
        self,
        shape: tuple[int, ...],
        fill: Callable[[Tensor, torch.Generator], Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        drawn = torch.empty(self.batch, *shape, dtype=dtype)
        for row, generator in zip(drawn, self._generators, strict=True):
            fill(row, generator)
        return drawn
