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
from copy import copy
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from anylatent.core.latents.hashing import APART, DRAWS, SAMPLES, STEP, mix, signed
from anylatent.core.latents.latent import Latent
from anylatent.core.latents.paths import Path as Path

Seed: TypeAlias = int | tuple[int, ...]


LOW = 2**32 - 1


@lru_cache(maxsize=1024)
def _hash(*key: int) -> int:
    text = ",".join(str(int(part)) for part in key)
    return signed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def _keys(seeds: Sequence[Seed]) -> Tensor:
    """A seed (…, i) is sample i of the run (…): the run's hash, and i by an odd multiplier."""
    split = [tuple(seed) if isinstance(seed, (tuple, list)) else (seed,) for seed in seeds]
    runs = torch.tensor([_hash(*run) for *run, _ in split])
    places = torch.tensor([signed(int(place)) for *_, place in split])
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
        return self._fill(latent, [self._begin(self._keys) for _ in latent.parts])

    def path(self, latent: Latent, rate: float = 1.0) -> Path:
        """The next Brownian path, on the subspace of `latent`; see `Path`."""
        return Path(latent, self._begin(self._keys), self._fills, rate)

    def apart(self, number: int = 1) -> Noise:
        """Another source for the same samples, from its first draw on: what is drawn from it moves
        no draw of this one's. Sources of other numbers are apart from one another."""
        found = Noise.__new__(Noise)
        found.positions, found._draws = self.positions, 0
        shift = signed(number * APART)
        found._keys, found._shared = (mix(keys + shift) for keys in (self._keys, self._shared))
        return found

    def select(self, index: Tensor) -> Noise:
        """The source of some of the samples, at whole numbers (N,), from where this one is."""
        found = copy(self)
        found._keys, found.positions = self._keys[index], self.positions[index]
        return found

    def entries(self, count: int) -> Noise:
        """Another source, with a sample for each of `count` entries of these: (B · count)."""
        found = self.apart()
        places = torch.arange(1, count + 1) * SAMPLES
        found._keys = mix(found._keys[:, None] + places).flatten()
        found.positions = self.positions.repeat_interleave(count)
        return found

    def _fill(self, latent: Latent, starts: Sequence[Tensor]) -> Latent:
        """Standard normal numbers, from one start of a draw (B,) for each field."""
        return self._fills(latent, [start[None] for start in starts])[0]

    def _fills(self, latent: Latent, starts: Sequence[Tensor]) -> list[Latent]:
        """L times standard normal numbers, from the starts (L, B) of draws for each field."""
        if latent.batch != self.batch:
            raise ValueError(f"noise for {self.batch} samples, but a latent of {latent.batch}")
        parts = {
            name: self._normal(start.flatten(), x.shape[1:], x.device).to(x.dtype)
            for start, (name, x) in zip(starts, latent.parts.items(), strict=True)
        }
        split = zip(*(torch.split(x, self.batch) for x in parts.values()), strict=True)
        each = [dict(zip(parts, own, strict=True)) for own in split]
        return [Latent(part, latent.masks, latent.spec).project() for part in each]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, shape (B, *shape), float32 on the CPU."""
        return self._normal(self._begin(self._keys), shape, torch.device("cpu"))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), shape (B, *shape), float64 on the CPU."""
        bits = _bits(self._begin(self._keys), math.prod(shape))
        return _uniform(bits).view(self.batch, *shape)

    def shared_uniform(self) -> Tensor:
        """One uniform number that the whole joint batch has in common, shape ()."""
        return _uniform(_bits(self._begin(self._shared), 1)).view(())

    def _begin(self, keys: Tensor) -> Tensor:
        """Where the next draw starts for each key."""
        self._draws += 1
        return mix(keys + signed(self._draws * DRAWS))

    def _normal(self, start: Tensor, shape: Sequence[int], device: torch.device) -> Tensor:
        """Box and Muller: numbers 2j and 2j + 1 of a sample come from place j."""
        count = math.prod(shape)
        where = torch.device("cpu") if device.type == "mps" else device  # no float64 there
        bits = _bits(start.to(where, non_blocking=True), (count + 1) // 2)
        radius = (bits >> 32).bitwise_and_(LOW).double().add_(0.5).mul_(2.0**-32)
        radius = radius.log_().mul_(-2).sqrt_()
        angle = bits.bitwise_and_(LOW).double().mul_(2 * math.pi * 2.0**-32)
        drawn = torch.empty(*bits.shape, 2, device=where)
        drawn[..., 0] = angle.cos().mul_(radius)
        drawn[..., 1] = angle.sin_().mul_(radius)
        return drawn.flatten(1)[:, :count].reshape(len(start), *shape).to(device)


def _bits(start: Tensor, count: int) -> Tensor:
    """64 random bits at places 0 … count − 1 of a draw, (B, count) int64."""
    return mix(start[:, None] + torch.arange(1, count + 1, device=start.device) * STEP)


def _uniform(bits: Tensor) -> Tensor:
    """The upper 53 bits as float64 in [0, 1)."""
    return ((bits >> 11) & (2**53 - 1)).double() * 2.0**-53


class Started(Noise):
    """Noise whose first draw of each field is `start`, standard normal latents, one for each seed.

    All other draws are those of `seeds`, as if the first had been drawn too.
    """

    def __init__(self, seeds: Sequence[Seed], start: Latent) -> None:
        super().__init__(seeds)
        self.start, self._left = start, set(start.parts)

    def like(self, latent: Latent) -> Latent:
        drawn = super().like(latent)
        if not self._left.issuperset(latent.parts):
            return drawn
        self._left -= set(latent.parts)
        return self.start.take(latent.parts).to(latent.device, latent.dtype)

    def select(self, index: Tensor) -> Started:
        found = super().select(index)
        assert isinstance(found, Started)
        found.start, found._left = self.start.select(index), set(self._left)
        return found
