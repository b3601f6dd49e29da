"""Brownian paths that are the same in whatever order, and however often, they are asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from anylatent.core.latents.hashing import DRAWS, NODES, mix, signed
from anylatent.core.latents.latent import Latent, choose, combine

RANGE, DEPTH = 32.0, 14  # of the logarithm of a path's clock, and of its tree
AT_ONCE = 2**18  # numbers of a path's nodes that are drawn together


Place: TypeAlias = int | Tensor
"""Of all samples, or of each, int64 (B,)."""


class Bridge(NamedTuple):
    """Places of a path, its values there, and the rate by half their distance."""

    low: Place
    high: Place
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
        fills: Callable[[Latent, Sequence[Tensor]], list[Latent]],
        rate: float = 1.0,
    ) -> None:
        self._like, self._start, self._fills, self._rate = like, start, fills, rate
        self._last: tuple[Place, Latent] | None = None
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
        gap = torch.as_tensor(right - left) * (self._rate * 2 * RANGE / 2**DEPTH)
        keep, fresh = torch.exp(-0.5 * gap), torch.rsqrt(-torch.expm1(-gap))
        if self._last is None or not _same(self._last[0], left):
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
            own = self._like, self._start, self._fills, self._rate
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
        return self._nodes([place])[0]

    def _nodes(self, places: Sequence[Place]) -> list[Latent]:
        """Those of several, at once where a latent is small: what is slow then is each call."""
        if not places:
            return []
        like, fields = self._like, range(1, len(self._like.parts) + 1)
        rows = torch.stack([torch.as_tensor(place) for place in places]).view(len(places), -1)
        base = mix(self._start + NODES * rows)
        most = max(1, AT_ONCE // sum(x.numel() for x in like.parts.values()))
        found = list[Latent]()
        for part in torch.split(base, most):
            found += self._fills(like, [mix(part + signed(k * DRAWS)) for k in fields])
        return found

    def _value(self, place: Place) -> Latent:
        """U at a place, by bridges down to it from the last way's deepest ends that it is between;
        the first way starts from those of the tree."""
        while self._way and not _within(place, self._way[-1]):
            self._way.pop()
        if not self._way:
            self._way.append(self._ends(place))
        down = _descent(place, self._way[-1])
        for halved, node in zip(down, self._nodes([halved.middle for halved in down]), strict=True):
            _, _, left, right, half = self._way[-1]
            pull, spread = 0.5 / math.cosh(half / 2), math.sqrt(math.tanh(half / 2))
            found = combine((pull, left), (pull, right), (spread, node))
            left, right = _choose(halved.up, found, left), _choose(halved.down, found, right)
            self._way.append(Bridge(halved.low, halved.high, left, right, half / 2))
        return _choose(place == self._way[-1].low, self._way[-1].left, self._way[-1].right)

    def _ends(self, place: Place) -> Bridge:
        """The whole range, for each of the places."""
        low, high = 0 * place, 0 * place + 2**DEPTH
        half, far = self._rate * RANGE, math.exp(-self._rate * RANGE)
        left, right = self._nodes([low, high])
        right = combine((far, left), (math.sqrt(1 - far**2), right))
        return Bridge(low, high, left, right, half)


class Halved(NamedTuple):
    """A bridge cut at its middle: which samples go up, which down, and the ends that remain."""

    middle: Place
    up: bool | Tensor
    down: bool | Tensor
    low: Place
    high: Place


def _descent(place: Place, bridge: Bridge) -> list[Halved]:
    """From a bridge to one that begins or ends at the place; those of all samples are halved as
    often, so that one rate is that of all."""
    low, high, found = bridge.low, bridge.high, list[Halved]()
    while not _all((place == low) | (place == high)):
        middle = (low + high) // 2
        up, down = place > middle, place <= middle
        if isinstance(up, Tensor) and isinstance(down, Tensor):
            low = torch.where(up, torch.as_tensor(middle), torch.as_tensor(low))
            high = torch.where(down, torch.as_tensor(middle), torch.as_tensor(high))
        else:
            low, high = middle if up else low, middle if down else high
        found.append(Halved(middle, up, down, low, high))
    return found


def _within(place: Place, bridge: Bridge) -> bool:
    if torch.as_tensor(place).shape != torch.as_tensor(bridge.low).shape:
        return False
    return _all((bridge.low <= place) & (place <= bridge.high))


def _same(place: Place, other: Place) -> bool:
    if isinstance(place, Tensor) and isinstance(other, Tensor):
        return torch.equal(place, other)
    return type(place) is type(other) and bool(place == other)


def _all(each: bool | Tensor) -> bool:
    return each if isinstance(each, bool) else bool(each.all())


def _place(point: float | Tensor) -> Place:
    inside = torch.as_tensor(point, dtype=torch.float64).clamp(-RANGE, RANGE)
    place: Tensor = ((inside + RANGE) * (2**DEPTH / (2 * RANGE))).round().long()
    return place if place.ndim else int(place)


def _choose(first: bool | Tensor, yes: Latent, no: Latent) -> Latent:
    """One of two latents for each sample; `first`: bool on the CPU, of shape () or (B,)."""
    if isinstance(first, bool):
        return yes if first else no
    if bool(first.all()) or not bool(first.any()):
        return yes if bool(first.any()) else no
    return choose(first, yes, no)
