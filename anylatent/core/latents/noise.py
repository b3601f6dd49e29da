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
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from anylatent.core.latents.latent import Latent, choose, combine

Seed: TypeAlias = int | tuple[int, ...]


def _signed(value: int) -> int:
    """The 64-bit integer of torch with the same bits."""
    return (value + 2**63) % 2**64 - 2**63


STEP = _signed(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: between the places of a draw
SAMPLES = _signed(0xD1342543DE82EF95)  # odd, so that the samples of a run never collide
DRAWS = _signed(0xA0761D6478BD642F)  # odd, so that a sample's draws never do
NODES = _signed(0xE7037ED1A0B428DB)  # odd: between the nodes of a path
APART = _signed(0x8EBC6AF09C88C6E3)  # odd: between a source and those that are apart from it
LOW = 2**32 - 1
RANGE, DEPTH = 32.0, 14  # of the logarithm of a path's clock, and of its tree


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
        return self._fill(latent, [self._begin(self._keys) for _ in latent.parts])

    def path(self, latent: Latent, rate: float = 1.0) -> Path:
        """The next Brownian path, on the subspace of `latent`; see `Path`."""
        return Path(latent, self._begin(self._keys), self._fill, rate)

    def apart(self, number: int = 1) -> Noise:
        """Another source for the same samples, from its first draw on: what is drawn from it moves
        no draw of this one's. Sources of other numbers are apart from one another."""
        found = Noise.__new__(Noise)
        found.positions, found._draws = self.positions, 0
        shift = _signed(number * APART)
        found._keys, found._shared = (mix(keys + shift) for keys in (self._keys, self._shared))
        return found

    def _fill(self, latent: Latent, starts: Sequence[Tensor]) -> Latent:
        """Standard normal numbers, from one start of a draw (B,) for each field."""
        if latent.batch != self.batch:
            raise ValueError(f"noise for {self.batch} samples, but a latent of {latent.batch}")
        parts = {
            name: self._normal(start, x.shape[1:], x.device).to(x.dtype)
            for start, (name, x) in zip(starts, latent.parts.items(), strict=True)
        }
        return Latent(parts, latent.masks, latent.spec).project()

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
        return mix(keys + _signed(self._draws * DRAWS))

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
        return drawn.flatten(1)[:, :count].reshape(self.batch, *shape).to(device)


class Bridge(NamedTuple):
    """Places of a path, () or (B,), its values there, and the rate by half their distance."""

    low: Tensor
    high: Tensor
    left: Latent
    right: Latent
    half: float


class Path:
    """A Brownian path W per sample, over the clock τ = exp(rate·l), told by l (a log-SNR).

    U(l) = W(τ)/√τ is a stationary Ornstein-Uhlenbeck process with covariance exp(-rate·|l - l'|/2).
    It is known at the nodes of a dyadic tree over l in [-RANGE, RANGE] by bridges: the middle of
    two points at a distance 2d has the mean (U_a + U_b)/(2·cosh(rate·d/2)) and the variance
    tanh(rate·d/2). A node's number is a function of the sample's key and its place alone, so that
    the path is the same in whatever order, and however often, it is asked.
    """

    def __init__(
        self,
        like: Latent,
        start: Tensor,
        fill: Callable[[Latent, Sequence[Tensor]], Latent],
        rate: float = 1.0,
    ) -> None:
        self._like, self._start, self._fill, self._rate = like, start, fill, rate
        self._last: tuple[Tensor, Latent] | None = None
        self._frames: list[Path] = []
        self._way: list[Bridge] = []

    def between(self, before: float | Tensor, after: float | Tensor) -> Latent:
        """z = (W(τ') - W(τ))/√(τ' - τ), standard normal, for l < l' of shape (), (B,) or (B, T).

        Independent for successive steps. Points are moved to the nearest of 2^DEPTH; a step within
        one of them has a z of its own.
        """
        if isinstance(before, Tensor) and isinstance(after, Tensor) and before.ndim == 2:
            return self._by_frame(before, after)
        left, right = _place(before), _place(after)
        gap = (right - left) * (self._rate * 2 * RANGE / 2**DEPTH)
        keep, fresh = torch.exp(-0.5 * gap), torch.rsqrt(-torch.expm1(-gap))
        if self._last is None or not torch.equal(self._last[0], left):
            self._last = left, self._value(left)
        old, self._last = self._last[1], (right, self._value(right))
        moved = combine((fresh, self._last[1]), (-keep * fresh, old))
        if bool((gap > 0).all()):
            return moved
        inner = self._node(torch.as_tensor(after, dtype=torch.float64).view(torch.int64))
        return _choose(gap > 0, moved, inner)

    def _by_frame(self, before: Tensor, after: Tensor) -> Latent:
        """Each frame's part of the path at that frame's own points."""
        if not self._frames:
            count = before.shape[1]
            own = self._like, self._start, self._fill, self._rate
            self._frames = [Path(*own) for _ in range(count)]
        pairs = zip(self._frames, before.unbind(1), after.unbind(1), strict=True)
        found = [path.between(a, b) for path, a, b in pairs]
        parts = {
            name: torch.stack([z[name][:, k] for k, z in enumerate(found)], 1)
            for name in self._like.parts
        }
        return Latent(parts, self._like.masks, self._like.spec)

    def _node(self, place: Tensor) -> Latent:
        """The standard normal numbers of a node; place: int64 of shape () or (B,)."""
        base = mix(self._start + NODES * place)
        fields = range(1, len(self._like.parts) + 1)
        return self._fill(self._like, [mix(base + _signed(k * DRAWS)) for k in fields])

    def _value(self, place: Tensor) -> Latent:
        """U at a place, by bridges down to it from the last way's deepest ends that it is between;
        the first way starts from those of the tree."""
        while self._way and not _within(place, self._way[-1]):
            self._way.pop()
        if not self._way:
            self._way.append(self._ends(place))
        while True:
            low, high, left, right, half = self._way[-1]
            at_left, at_right = place == low, place == high
            if bool((at_left | at_right).all()):
                return _choose(at_left, left, right)
            middle, pull = (low + high) // 2, 0.5 / math.cosh(half / 2)
            spread = math.sqrt(math.tanh(half / 2))
            found = combine((pull, left), (pull, right), (spread, self._node(middle)))
            down, up = (place <= middle) & ~at_left, (place > middle) & ~at_right
            low, high = torch.where(up, middle, low), torch.where(down, middle, high)
            left, right = _choose(up, found, left), _choose(down, found, right)
            self._way.append(Bridge(low, high, left, right, half / 2))

    def _ends(self, place: Tensor) -> Bridge:
        """The whole range, for each of the places."""
        low, high = torch.zeros_like(place), torch.full_like(place, 2**DEPTH)
        half, far = self._rate * RANGE, math.exp(-self._rate * RANGE)
        left, right = self._node(low), self._node(high)
        right = combine((far, left), (math.sqrt(1 - far**2), right))
        return Bridge(low, high, left, right, half)


def _within(place: Tensor, bridge: Bridge) -> bool:
    if place.shape != bridge.low.shape:
        return False
    return bool(((bridge.low <= place) & (place <= bridge.high)).all())


def _place(point: float | Tensor) -> Tensor:
    inside = torch.as_tensor(point, dtype=torch.float64).clamp(-RANGE, RANGE)
    place: Tensor = ((inside + RANGE) * (2**DEPTH / (2 * RANGE))).round().long()
    return place


def _choose(first: Tensor, yes: Latent, no: Latent) -> Latent:
    """One of two latents for each sample; `first`: bool on the CPU, of shape () or (B,)."""
    if bool(first.all()) or not bool(first.any()):
        return yes if bool(first.any()) else no
    return choose(first, yes, no)


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
