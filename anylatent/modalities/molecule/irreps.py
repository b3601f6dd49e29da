"""Features by degree: their layout, and the layers that treat degrees apart.

A feature of degree l has 2l + 1 components, which turn by the Wigner matrix D^l and have parity
(−1)^l: l = 0 are scalars, 1 vectors, 2 traceless symmetric matrices. The basis is e3nn's. The
features of one degree lie as (2l + 1, n_l), the transpose of e3nn's layout: everything here is
faster with channels last.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad, silu

from anylatent.core.nn.layers import zero
from anylatent.core.support.packages import MissingPackage

Sizes: TypeAlias = tuple[int, ...]
"""How many features there are of degree l = 0, 1, ...; they lie one degree after the other."""

DEGREE = 2
"""The highest degree, of features and of spherical harmonics."""

Path: TypeAlias = tuple[int, int, int]
"""Degrees (a, b, c): of a feature, of a harmonic and of their product."""

PATHS: list[Path] = [
    (a, b, c)
    for c in range(DEGREE + 1)
    for a in range(DEGREE + 1)
    for b in range(abs(a - c), min(a + c, DEGREE) + 1)
    if (a + b + c) % 2 == 0
]
"""All paths among features of parity (−1)^l."""


class AdaptiveNorm(nn.Module):
    """Layer norm of scalars, division of the others by their mean length, scaled by an embedding.

    f: (M, sizes), embedding: (B, E), sample: (M,). Plain at initialisation.
    """

    def __init__(self, sizes: Sizes, embedding: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.modulation = zero(nn.Linear(embedding, sizes[0] + sum(sizes)))

    def forward(self, f: Tensor, embedding: Tensor, sample: Tensor) -> Tensor:
        shift, *scales = self.modulation(embedding)[sample].split((self.sizes[0], *self.sizes), -1)
        scalars, *others = parts(f, self.sizes)
        normed = layer_norm(scalars[:, 0], self.sizes[:1])
        out = [torch.addcmul(shift, normed, 1 + scales[0])]
        for v, scale in zip(others, scales[1:], strict=True):
            inverse = (v.square().mean((1, 2), keepdim=True) + 1e-3).rsqrt()
            out.append((v * (inverse * (1 + scale[:, None]))).flatten(1))
        return torch.cat(out, -1)


class Mix(nn.Module):
    """A linear map among the features of each degree; zero for a degree without input.

    (M, inputs) to (M, outputs). Its weights have the scale of `nn.Linear`, unlike e3nn's, so that
    one learning rate suits them and all others.
    """

    def __init__(self, inputs: Sizes, outputs: Sizes) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        both = zip(inputs, outputs, strict=False)
        self.maps = nn.ModuleList(nn.Linear(n, m, bias=not i) for i, (n, m) in enumerate(both))

    def forward(self, f: Tensor) -> Tensor:
        pairs = zip(self.maps, parts(f, self.inputs), strict=False)
        return fit(torch.cat([layer(v).flatten(1) for layer, v in pairs], -1), self.outputs)


class Couplings(nn.Module):
    """Directions r̂ (E, 3) to a matrix (E, 2c + 1, 2a + 1) for each path a ⊗ b → c with b > 0.

    K_ki = √(2c + 1) Σ_j C_ijk Y^b_j(r̂), with e3nn's harmonics and Clebsch-Gordan coefficients: K·v
    is the part of degree c of v ⊗ Y^b, of about the size of v. The coefficients are rounded from
    float64 anew when the precision changes, and are no part of the state.
    """

    coefficients: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.paths = [path for path in PATHS if path[1] > 0]
        self.harmonics = e3nn_module("o3").SphericalHarmonics(
            list(range(DEGREE + 1)), normalize=False, normalization="component"
        )
        table = self._table().to(torch.get_default_dtype())
        self.register_buffer("coefficients", table, persistent=False)

    def forward(self, direction: Tensor) -> dict[Path, Tensor]:
        entries = self.harmonics(direction) @ self.coefficients
        shapes = [(2 * c + 1, 2 * a + 1) for a, _, c in self.paths]
        pieces = torch.split(entries, [rows * columns for rows, columns in shapes], -1)
        return {
            path: piece.reshape(-1, *shape)
            for path, piece, shape in zip(self.paths, pieces, shapes, strict=True)
        }

    def _table(self) -> Tensor:
        """From all harmonics to the entries of all matrices, (9, Σ (2c + 1)(2a + 1))."""
        columns = []
        for a, b, c in self.paths:
            block = e3nn_module("o3").wigner_3j(a, b, c, dtype=torch.float64, device="cpu")
            block = (block * (2 * c + 1) ** 0.5).permute(1, 2, 0).flatten(1)
            rows = (DEGREE + 1) ** 2
            columns.append(pad(block, (0, 0, b * b, rows - (b + 1) ** 2)))
        return torch.cat(columns, 1)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Couplings:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.coefficients = self._table().to(self.coefficients)
        return self


class WeightedProduct(nn.Module):
    """Features (E, inputs) times harmonics, by couplings, with a weight per path and channel.

    Channels stay apart ("uvu" in e3nn's terms). Of each degree c of the result, of `sizes`, there
    are all channels of degree 0, then those of degree 1, and so on, each summed over the harmonics.
    `paths` tells the order of the weights, (E, `weights`).
    """

    def __init__(self, inputs: Sizes, degrees: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.sizes: Sizes = (sum(inputs),) * degrees
        self.paths = [p for p in PATHS if p[0] < len(inputs) and p[2] < degrees]
        self.splits = [inputs[a] for a, _, _ in self.paths]
        self.weights = sum(self.splits)

    def forward(self, f: Tensor, couplings: dict[Path, Tensor], weights: Tensor) -> Tensor:
        features = parts(f, self.inputs)
        pieces = torch.split(weights.unsqueeze(1), self.splits, -1)
        sums: dict[tuple[int, int], Tensor] = {}
        for (a, b, c), weight in zip(self.paths, pieces, strict=True):
            term = _couple(features[a], couplings.get((a, b, c)), weight)
            sums[c, a] = sums[c, a] + term if (c, a) in sums else term
        rows = range(len(self.sizes))
        terms = [torch.cat([v for (c, _), v in sums.items() if c == row], -1) for row in rows]
        return torch.cat([v.flatten(1) for v in terms], -1)


def _couple(v: Tensor, coupling: Tensor | None, weight: Tensor) -> Tensor:
    """K·v times weight, v: (E, 2a + 1, n) and weight: (E, 1, n); products of small things first."""
    if coupling is None:
        return weight * v
    rows, columns = coupling.shape[1:]
    if columns == 1:
        return coupling * (weight * v)
    return coupling @ (weight * v) if columns <= rows else weight * (coupling @ v)


def gate(f: Tensor, sizes: Sizes) -> Tensor:
    """silu of scalars; other features times the sigmoid of a scalar each.

    (M, `gated(sizes)`) to (M, sizes).
    """
    scalars, *others = parts(f, gated(sizes))
    values, *gates = torch.split(scalars, list(sizes), -1)
    opened = [v * g.sigmoid() for v, g in zip(others, gates, strict=True)]
    return torch.cat([v.flatten(1) for v in (silu(values), *opened)], -1)


def gated(sizes: Sizes) -> Sizes:
    """Sizes with a further scalar per feature of higher degree."""
    return (sum(sizes), *sizes[1:])


def parts(f: Tensor, sizes: Sizes) -> list[Tensor]:
    """(M, sizes) as one tensor (M, 2l + 1, n_l) per degree."""
    pieces = torch.split(f, [n * (2 * i + 1) for i, n in enumerate(sizes)], -1)
    return [p.reshape(-1, 2 * i + 1, n) for i, (n, p) in enumerate(zip(sizes, pieces, strict=True))]


def fit(f: Tensor, sizes: Sizes) -> Tensor:
    """Cut after the last degree of `sizes`, or filled up with zeros."""
    return pad(f, (0, sum(n * (2 * i + 1) for i, n in enumerate(sizes)) - f.shape[-1]))


def e3nn_module(name: str) -> ModuleType:
    """A module of e3nn, imported when first used: that takes seconds."""
    try:
        return importlib.import_module(f"e3nn.{name}")
    except ImportError as error:
        raise MissingPackage("e3nn", "backbone=tensor_product") from error
