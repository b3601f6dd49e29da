"""Piecewise linear curves that rise: distribution functions that were tabulated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Curve:
    """The function through the points (x, y), both rising, of shape (N,)."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, weights: Tensor) -> Curve:
        """The distribution function on [0, 1] of a density ∝ weights in equal parts, (N - 1,)."""
        total = torch.cat([weights.new_zeros(1), weights.cumsum(0)])
        places = torch.linspace(0, 1, len(total), dtype=total.dtype, device=total.device)
        return cls(places, total / total[-1])

    def __call__(self, x: Tensor) -> Tensor:
        return _interpolate(x.to(self.x), self.x, self.y)

    def inverse(self, y: Tensor) -> Tensor:
        return _interpolate(y.to(self.y), self.y, self.x)

    def slope(self, x: Tensor) -> Tensor:
        cell = _cell(x.to(self.x), self.x)
        return _step(self.y, cell) / _step(self.x, cell)


def _cell(x: Tensor, xs: Tensor) -> Tensor:
    return torch.searchsorted(xs, x.contiguous(), right=True).clamp(1, len(xs) - 1)


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    cell = _cell(x.detach(), xs)
    share = (x - xs.take(cell - 1)) / _step(xs, cell)
    return ys.take(cell - 1) + share * _step(ys, cell)


def _step(values: Tensor, cell: Tensor) -> Tensor:
    """From the beginning to the end of a cell; an index of shape () would be read by the host."""
    return values.take(cell) - values.take(cell - 1)
