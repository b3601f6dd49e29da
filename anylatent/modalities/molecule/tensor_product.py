"""An equivariant backbone for points in space, by tensor products of irreducible representations.

A point has `n_l` features of each degree l: scalars, vectors and traceless symmetric tensors, which
turn with the points by the Wigner matrices D^l and whose parity is (−1)^l. Such features of a
neighbour and the spherical harmonics Y of the direction to it combine by Clebsch-Gordan
coefficients C, each path l1 ⊗ l2 → l3 weighted by a network of what is invariant:

    m_i^{l3} = Σ_j w(|r_ij|, s_i, s_j, noise) · C^{l1 l2 l3} (f_j^{l1} ⊗ Y^{l2}(r_ij)) / √(n − 1)

Tensor field networks (1802.08219), here with paths per channel as in NequIP (2101.03164).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.conditioning import ConditionEmbedder
from anylatent.core.nn.embedding import Features, NoiseEmbedding
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import zero
from anylatent.core.nn.sites import Site, Visit, visiting
from anylatent.modalities.molecule.irreps import (
    AdaptiveNorm,
    Couplings,
    Mix,
    Path,
    Sizes,
    WeightedProduct,
    fit,
    gate,
    gated,
    parts,
)

SOFT = 1e-2
"""Below this distance a direction fades to zero, so that points on one another do no harm."""


class TensorProductNetwork(Backbone):
    """Tensor-product messages between all pairs of points, for latents of points and features.

    Points (None, 3), centred; features (None, F). There are `scalars`, `vectors` and `tensors` of
    l = 0, 1, 2 between the `depth` layers; the first reads scalars, the last writes scalars and
    vectors; messages carry 1/`narrow` of their number. Noise and conditions (their vector: of
    tokens the mean; maps are laid over the features) enter as scales and shifts of each layer's
    norm and in the weights of messages, which a network `radial` wide makes of `basis` features of
    the distance. With `cutoff` > 0, in units of the backbone's input, messages fade smoothly to
    zero there; with 0 all pairs meet. `features` are those of the noise level.

    Equivariant under permutations, translations, rotations and reflections. The last means that
    mirror images get mirror outputs: there are no pseudoscalars, so `h` doesn't tell enantiomers
    apart. Exact to rounding whatever order of building, `.double()` and loading: constants are made
    anew when the precision changes, and are no part of the state. The output is zero at first.

    Raises `MissingPackage` without e3nn, `ValueError` for a spec that isn't a point set.
    """

    def __init__(
        self,
        spec: LatentSpec | None = None,
        conditions: ConditionSpec | None = None,
        *,
        scalars: int = 64,
        vectors: int = 32,
        tensors: int = 16,
        depth: int = 4,
        embedding: int = 128,
        radial: int = 64,
        basis: int = 32,
        narrow: int = 2,
        cutoff: float = 0.0,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        # here, not as a decorator: it imports torch's compiler, which costs a second
        self.neighbourhood = torch.compiler.disable(neighbourhood)  # type: ignore[no-untyped-call]
        self.cutoff, sizes = cutoff, _sizes(scalars, vectors, tensors, depth, narrow)
        self.spec = _default_spec() if spec is None else spec
        self.conditions = ConditionSpec() if conditions is None else conditions
        self.points, self.features, channels = point_fields(self.spec)
        self.noise = NoiseEmbedding(embedding, features)
        self.condition = ConditionEmbedder(self.conditions, embedding, attends=False)
        self.first = nn.Linear(channels + self.condition.overlaid, scalars)
        self.start = nn.Linear(embedding, scalars)
        self.geometry = Geometry(basis, cutoff)
        self.blocks = _layers(sizes, depth, partial(Block, embedding, radial, basis, narrow))
        self.norm = AdaptiveNorm(sizes[:2], embedding)
        self.last = zero(Mix(sizes[:2], (channels, 1)))
        self.gain = zero(nn.Linear(embedding, 1))
        self.sites = [
            Site(f"blocks.{i}", scalars, "tokens", False, embedding) for i in range(depth)
        ]

    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        h = x[self.features]
        embedding = silu(self.noise(self.levels(c_noise, x)) + self.condition(cond, h).vector)
        rows = self.neighbourhood(x.masks[self.points], x[self.points], self.cutoff)
        r = x[self.points].flatten(0, 1)[rows.points]
        edges = self.geometry(r, rows)
        f = self.first(self.condition.overlay(h, cond, axis=2).flatten(0, 1)[rows.points])
        f = f + self.start(embedding)[rows.sample]
        visit, mask = visiting(guest, self.sites, embedding), x.masks[self.points]
        for block in self.blocks:
            f = block(f, edges, embedding, rows)
            f = f if visit is None else _visited(f, visit, rows, mask, self.sites[0].width)
            if visit is not None and visit.over:
                return x.zeros()
        out = self.last(self.norm(f, embedding, rows.sample))
        features, moved = out.split((out.shape[1] - 3, 3), -1)
        moved = moved + self.gain(embedding)[rows.sample] * r
        return x.replace(
            **{
                self.points: _padded(moved, rows.points, x[self.points]),
                self.features: _padded(features, rows.points, h),
            }
        )


def _visited(f: Tensor, visit: Visit, rows: Rows, mask: Tensor, scalars: int) -> Tensor:
    """The features (M, C) with those that no rotation changes as the guest leaves them."""
    shown = _padded(f[:, :scalars], rows.points, f.new_empty(*mask.shape, scalars))
    left = visit(shown, mask).flatten(0, 1)[rows.points]
    return torch.cat([left.to(f.dtype), f[:, scalars:]], 1)


class Rows(NamedTuple):
    """The valid points of a padded batch (M of B·N), and the ordered pairs of them that meet."""

    points: Tensor  # (M,) index into the B·N
    sample: Tensor  # (M,) index into the B
    target: Tensor  # (E,) index into the M
    source: Tensor  # (E,)
    scale: Tensor  # (M, 1): 1 / √(other points of the sample)


class Edges(NamedTuple):
    """What messages read of each pair: features of its distance, and what its direction does."""

    basis: Tensor  # (E, K)
    couplings: dict[Path, Tensor]  # (E, 2c + 1, 2a + 1)
    envelope: Tensor | None  # (E, 1)


def neighbourhood(mask: Tensor, x: Tensor, cutoff: float = 0.0) -> Rows:
    """Pairs i ≠ j of valid points of one sample, closer than `cutoff` if there is one.

    mask: (B, N), x: (B, N, 3). The sizes depend on the data, hence not compiled.
    """
    points = mask.flatten().nonzero()[:, 0]
    pair = mask[:, :, None] & mask[:, None]
    pair = pair & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    if cutoff > 0:
        pair = pair & ((x[:, :, None] - x[:, None]).detach().square().sum(-1) < cutoff**2)
    sample, target, source = pair.nonzero(as_tuple=True)
    number = (mask.flatten().cumsum(0) - 1).view_as(mask)
    owner = points // mask.shape[1]
    others = mask.sum(1, keepdim=True)[owner] - 1
    scale = others.clamp(min=1).to(x.dtype).rsqrt()
    return Rows(points, owner, number[sample, target], number[sample, source], scale)


class Geometry(nn.Module):
    """Distances (E,) to features, directions to spherical harmonics up to l = 2.

    Features are u = log(1 + d / δ) and Gaussians spaced evenly in u, so finer where points are
    close: the input has unit variance whatever the size of a molecule and the noise on it, so that
    bonds are the shorter the more atoms there are, and the longest distances are about 10.
    """

    centres: Tensor

    def __init__(
        self, basis: int, cutoff: float = 0.0, *, reach: float = 10.0, delta: float = 0.25
    ) -> None:
        super().__init__()
        if basis < 2 or cutoff < 0:
            raise ValueError(f"needs basis ≥ 2 and cutoff ≥ 0, got {basis} and {cutoff}")
        self.cutoff, self.delta = cutoff, delta
        top = torch.tensor(1 + (cutoff or reach) / delta).log()
        self.register_buffer("centres", top * torch.linspace(0, 1, basis - 1), persistent=False)
        self.sharpness = float((basis - 2) / top) if basis > 2 else 1.0
        self.couplings = Couplings()

    def forward(self, x: Tensor, rows: Rows) -> Edges:
        """x: (M, 3)."""
        r = x[rows.source] - x[rows.target]
        d = (r.square().sum(-1, keepdim=True) + SOFT**2).sqrt()
        u = (1 + d / self.delta).log()
        basis = torch.cat((u, (-(((u - self.centres) * self.sharpness) ** 2)).exp()), -1)
        envelope = None
        if self.cutoff > 0:
            envelope = (1 - (d / self.cutoff).square()).clamp(min=0) ** 3
        return Edges(basis, self.couplings(r / d), envelope)


class Block(nn.Module):
    """f + mix(gate(messages + self-connection)), features of `inputs` to those of `outputs`.

    Gates and scalars also read the lengths of what is gated. Features that only one of the two has
    start, or end, here.
    """

    def __init__(
        self, embedding: int, radial: int, basis: int, narrow: int, inputs: Sizes, outputs: Sizes
    ) -> None:
        super().__init__()
        self.outputs, self.scalars = outputs, inputs[0]
        wide = gated(outputs)
        self.norm = AdaptiveNorm(inputs, embedding)
        carried = tuple(-(-n // narrow) for n in inputs)
        self.before = Mix(inputs, carried)
        self.product = WeightedProduct(carried, len(outputs))
        self.distance = nn.Linear(basis, radial)
        self.ends = nn.Linear(inputs[0], 2 * radial, bias=False)
        self.level = nn.Linear(embedding, radial, bias=False)
        self.hidden = nn.Linear(radial, radial)
        self.weights = nn.Linear(radial, self.product.weights)
        nn.init.normal_(self.weights.weight, std=(0.36 * radial) ** -0.5)  # E[silu(z)²] ≈ 0.36
        self.after = Mix(self.product.sizes, wide)
        self.same = Mix(inputs, wide)
        self.lengths = nn.Linear(sum(outputs[1:]), wide[0], bias=False)
        self.last = Mix(outputs, outputs)

    def forward(self, f: Tensor, edges: Edges, embedding: Tensor, rows: Rows) -> Tensor:
        """f: (M, inputs), embedding: (B, E). Gives (M, outputs)."""
        g = self.norm(f, embedding, rows.sample)
        weights = self._weights(g[:, : self.scalars], edges, embedding, rows)
        messages = self.product(self.before(g)[rows.source], edges.couplings, weights)
        total = messages.new_zeros(len(g), messages.shape[1]).index_add(0, rows.target, messages)
        mixed = self.after(total * rows.scale) + self.same(g)
        wide = gated(self.outputs)
        vectors = parts(mixed, wide)[1:]
        lengths = torch.cat([(1 + v.square().mean(1)).sqrt() for v in vectors], -1)
        mixed = mixed + fit(self.lengths(lengths), wide)
        update: Tensor = self.last(gate(mixed, self.outputs))
        return fit(f, self.outputs) + update

    def _weights(self, scalars: Tensor, edges: Edges, embedding: Tensor, rows: Rows) -> Tensor:
        target, source = self.ends(scalars).chunk(2, -1)
        target = target + self.level(embedding)[rows.sample]
        hidden = self.distance(edges.basis) + target[rows.target] + source[rows.source]
        weights: Tensor = self.weights(silu(self.hidden(silu(hidden))))
        return weights if edges.envelope is None else weights * edges.envelope


def point_fields(spec: LatentSpec) -> tuple[str, str, int]:
    """The names of a spec's points (None, 3), centred, and features (None, F), and F."""
    points = [k for k, f in spec.fields.items() if f.centred and f.shape == (None, 3)]
    others = [k for k, f in spec.fields.items() if k not in points]
    if len(points) == len(others) == 1:
        field = spec.fields[others[0]]
        if field.variable and len(field.shape) == 2 and not field.centred:
            return points[0], others[0], field.rest[0]
    raise ValueError(
        f"this backbone needs latents of two fields, centred points (None, 3) and features "
        f"(None, F), got {spec}"
    )


def _default_spec() -> LatentSpec:
    return LatentSpec({"x": Field((None, 3), centred=True), "h": Field((None, 5))})


def _layers(sizes: Sizes, depth: int, make: Callable[[Sizes, Sizes], Block]) -> nn.ModuleList:
    """The first reads scalars alone, the last writes scalars and vectors."""
    ends = [sizes[:1], *[sizes] * (depth - 1), sizes[:2]]
    return nn.ModuleList(make(*pair) for pair in pairwise(ends))


def _sizes(scalars: int, vectors: int, tensors: int, depth: int, narrow: int) -> Sizes:
    if min(scalars, vectors, depth, narrow) < 1 or tensors < 0:
        raise ValueError(
            f"scalars, vectors, depth and narrow must be at least 1 and tensors at least 0, got "
            f"{scalars}, {vectors}, {depth}, {narrow} and {tensors}"
        )
    return (scalars, vectors, tensors) if tensors else (scalars, vectors)


def _padded(f: Tensor, points: Tensor, like: Tensor) -> Tensor:
    """Rows (M, C) at their places in zeros (B, N, C)."""
    flat = like.new_zeros(like.shape[0] * like.shape[1], f.shape[1])
    return flat.index_copy(0, points, f.to(like.dtype)).view(*like.shape[:2], f.shape[1])
