"""Randomness that is a pure function of the sample's key, the draw and the place in the sample.

Number j of draw d of sample i is `hash(key_i, d, j)`: counters instead of a generator's state, so
sample i draws the same numbers whatever its neighbours, its padding, the device and the precision,
and a whole batch is drawn at once where its latent lies, without waiting for the device. Every
stochastic part of the package draws from here.

The hash is the output function of SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable
pseudorandom number generators"): a bijection of 64 bits whose sequence over an odd increment
passes BigCrush. Normal numbers come in pairs by Box and Muller's transform, in float64 where the
device has it, so that devices agree to the last bit of float32 but for one number in millions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from anylatent.core.latent import Latent

Seed: TypeAlias = int | tuple[int, ...]


def _signed(value: int) -> int:
    """The 64-bit integer of torch with the same bits."""
    return (value + 2**63) % 2**64 - 2**63


STEP = _signed(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: between the places of a draw
SAMPLES = _signed(0xD1342543DE82EF95)  # odd, so that the samples of a run never collide
DRAWS = _signed(0xA0761D6478BD642F)  # odd, so that a sample's draws never do
LOW = 2**32 - 1


def mix(z: Tensor) -> Tensor:
    """SplitMix64's bijection of 64-bit integers, elementwise; z: int64, overwritten."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z ^= (z >> shift) & (2 ** (64 - shift) - 1)  # torch shifts the sign in: mask it
        z *= _signed(factor)
    return z


@lru_cache(maxsize=1024)
def _hash(*key: int) -> int:
    text = ",".join(str(int(part)) for part in key)
    return _signed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def _keys(seeds: Sequence[Seed]) -> Tensor:
    """A seed (…, i) is sample i of the run (…): the run's hash, and i by an odd multiplier."""
    split = [tuple(seed) if isinstance(seed, (tuple, list)) else (seed,) for seed in seeds]
    runs = torch.tensor([_hash(*run) for *run, _ in split])
    places = torch.tensor([_signed(int(place)) for *_, place in split])
    return mix(places * SAMPLES + runs)


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
        places = range(len(seeds)) if positions is None else positions
        self.positions = torch.as_tensor(list(places), dtype=torch.float64)
        self._keys, self._shared = _keys(seeds), _keys([shared])
        self._draws = 0

    @classmethod
    def of(cls, seed: Seed, samples: int | Sequence[int]) -> Noise:
        """Noise for samples 0 … n − 1 (or the given positions) of the run with this seed."""
        positions = range(samples) if isinstance(samples, int) else samples
        key = seed if isinstance(seed, tuple) else (seed,)
        seeds = [(*key, int(i)) for i in positions]
        return cls(seeds, shared=(*key, -1), positions=positions)

    @property
    def batch(self) -> int:
        return len(self._keys)

    def like(self, latent: Latent) -> Latent:
        """The next standard normal latent on the subspace of `latent`, in its dtype."""
        if latent.batch != self.batch:
            raise ValueError(f"noise for {self.batch} samples, but a latent of {latent.batch}")
        parts = {
            name: self._normal(x.shape[1:], x.device).to(x.dtype)
            for name, x in latent.parts.items()
        }
        return Latent(parts, latent.masks, latent.spec).project()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, shape (B, *shape), float32 on the CPU."""
        return self._normal(shape, torch.device("cpu"))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), shape (B, *shape), float64 on the CPU."""
        return _uniform(self._bits(self._keys, math.prod(shape))).view(self.batch, *shape)

    def shared_uniform(self) -> Tensor:
        """One uniform number that the whole joint batch has in common, shape ()."""
        return _uniform(self._bits(self._shared, 1)).view(())

    def _bits(self, keys: Tensor, count: int) -> Tensor:
        """64 random bits at places 0 … count − 1 of the next draw, (B, count) int64."""
        self._draws += 1
        start = mix(keys + _signed(self._draws * DRAWS))
        places = torch.arange(1, count + 1, device=keys.device)
        return mix(start[:, None] + places * STEP)

    def _normal(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Box and Muller: numbers 2j and 2j + 1 of a sample come from place j."""
        count = math.prod(shape)
        where = torch.device("cpu") if device.type == "mps" else device  # no float64 there
        bits = self._bits(self._keys.to(where, non_blocking=True), (count + 1) // 2)
        radius = (bits >> 32).bitwise_and_(LOW).double().add_(0.5).mul_(2.0**-32)
        radius = radius.log_().mul_(-2).sqrt_()
        angle = bits.bitwise_and_(LOW).double().mul_(2 * math.pi * 2.0**-32)
        drawn = torch.empty(*bits.shape, 2, device=where)
        drawn[..., 0] = angle.cos().mul_(radius)
        drawn[..., 1] = angle.sin_().mul_(radius)
        return drawn.flatten(1)[:, :count].reshape(self.batch, *shape).to(device)


def _uniform(bits: Tensor) -> Tensor:
    """The upper 53 bits as float64 in [0, 1)."""
    return ((bits >> 11) & (2**53 - 1)).double() * 2.0**-53
