"""E(n)-equivariant message passing on points and features (2102.09844), built for speed.

For nodes with positions x_i, features h_i and d = |x_i - x_j|, a layer computes

    m_ij = φ_m(h_i + h_j, rbf(d), rbf(d at the start)),
    x_i += Σ_j (x_i - x_j)/(d + 1) · w·m_ij,
    h_i += φ_h(h_i, Σ_j gate(m_ij)·m_ij),

each pair once (see `pairs`); positions and features read the same message. The features are steered
by an embedding of noise level and condition, one vector per sample, through scale, shift and gate.
Rotations, reflections, translations and permutations commute with every layer exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import modulate, zero
from anylatent.core.nn.sites import Site, visiting
from anylatent.modalities.molecule.pairs import DensePairs, ListedPairs, Pairs, faster

EPSILON = 1e-8


class RadialBasis(nn.Module):
    """Gaussians in exp(-d/length), finest at short distances, (..., 1) to (..., size).

    PhysNet's exponential-normal basis (1902.08408).
    """

    centres: Tensor

    def __init__(self, size: int, length: float = 2.0) -> None:
        super().__init__()
        centres = torch.linspace(0.0, 1.0, size, dtype=torch.float64)
        self.register_buffer("centres", centres, persistent=False)
        self.length, self.sharpness = length, 0.5 * (size - 1) ** 2

    def forward(self, distance: Tensor) -> Tensor:
        away = torch.exp(-distance / self.length) - self.centres.to(distance)
        # denormal numbers would slow every later product on a CPU
        return torch.exp(-(self.sharpness * away.square()).clamp(max=30))


class Layer(nn.Module):
    """One round of messages; positions keep the precision they come in."""

    def __init__(self, width: int, edge: int, basis: int, embedding: int, ratio: float) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero(nn.Linear(embedding, 3 * width)) if embedding else None
        self.ends = nn.Linear(width, edge)
        self.radial = nn.Linear(2 * basis, edge)
        self.message = nn.Linear(edge, edge)
        self.heads = nn.Linear(edge, 2)
        with torch.no_grad():
            self.heads.weight[1].zero_()
            self.heads.bias.zero_()
        self.first = nn.Linear(width + edge, hidden)
        self.second = nn.Linear(hidden, width)

    def forward(
        self,
        x: Tensor,
        h: Tensor,
        embedding: Tensor | None,
        pairs: Pairs,
        basis: RadialBasis,
        start: Tensor,
    ) -> tuple[Tensor, Tensor]:
        delta, distance = separations(x, pairs)
        n, gate = self.norm(h), None
        if self.modulation is not None and embedding is not None:
            shift, scale, gate = self.modulation(embedding).chunk(3, -1)
            n = modulate(n, shift, scale)
        radial = self.radial(torch.cat([basis(distance), start], -1))
        m = silu(pairs.total(self.ends(n), radial))
        m = silu(self.message(m))
        heads = self.heads(m)
        with exactly(x):
            push = heads[..., 1:].to(x.dtype) / (distance + 1)
            x = x + pairs.spread(delta, push)
        total = pairs.gather(m, heads[..., :1].sigmoid() / 4)
        update = self.second(silu(self.first(torch.cat([n, total], -1))))
        return x, h + update if gate is None else torch.addcmul(h, 1 + gate[:, None], update)


def exactly(x: Tensor) -> torch.autocast:
    """Positions are never rounded to bfloat16: bond lengths matter to a hundredth of an Å."""
    return torch.autocast(x.device.type, enabled=False)


def separations(x: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """x_i - x_j and its length, for all pairs."""
    with exactly(x):
        delta = pairs.difference(x)
        return delta, (delta.square().sum(-1, keepdim=True) + EPSILON).sqrt()


class EGNN(nn.Module):
    """Layers of messages on x (B, N, 3) and h (B, N, F), steered by an embedding (B, E) if any.

    Returns positions and `width` features, zero at padding. Guests are shown the features, which no
    rotation changes. `pairs`: "dense", "list", or "" for
    whichever is faster at the batch's padding.
    """

    def __init__(
        self,
        features: int,
        width: int,
        edge: int,
        depth: int,
        *,
        embedding: int = 0,
        basis: int = 32,
        ratio: float = 2.0,
        pairs: str = "",
    ) -> None:
        super().__init__()
        if pairs not in ("", "dense", "list"):
            raise ValueError(f"pairs must be 'dense', 'list' or '', got {pairs!r}")
        self.pairs = pairs
        self.first = nn.Linear(features, width)
        self.basis = RadialBasis(basis)
        self.layers = nn.ModuleList(
            Layer(width, edge, basis, embedding, ratio) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.sites = [Site(f"layers.{i}", width, "tokens", False, embedding) for i in range(depth)]

    def forward(
        self,
        x: Tensor,
        h: Tensor,
        mask: Tensor,
        embedding: Tensor | None = None,
        guest: Guest | None = None,
    ) -> tuple[Tensor, Tensor]:
        x, h = (torch.where(mask[..., None], value, 0) for value in (x, h))
        form = self.pairs or faster(mask)
        pairs: Pairs = ListedPairs(mask) if form == "list" else DensePairs(mask, x.dtype)
        h = self.first(h)
        start = self.basis(separations(x, pairs)[1])
        visit = visiting(guest, self.sites, embedding)
        for layer in self.layers:
            x, h = layer(x, h, embedding, pairs, self.basis, start)
            h = h if visit is None else torch.where(mask[..., None], visit(h, mask), 0)
            if visit is not None and visit.over:
                break
        x, h = (torch.where(mask[..., None], value, 0) for value in (x, self.norm(h)))
        return x, h
