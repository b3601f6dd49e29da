"""Rotary positions: queries and keys turn with their place in the sequence. 2104.09864.

The numbers of a head are taken as size/2 pairs, each a complex number. At position p pair i is
multiplied by exp(p·θ_i·√-1), θ_i = base^(-2i/size). Turning keeps lengths, and a product of a query
at p with a key at q depends on p and q through p - q alone, so attention sees relative positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 1e4


def head_size(width: int, heads: int) -> int:
    """The numbers of one of `heads` heads, which must be even: they turn in pairs."""
    if heads < 1 or width % (2 * heads):
        raise ValueError(
            f"a width of {width} does not split into {heads} heads of even size, which rotary "
            f"positions need: take a multiple of {2 * max(heads, 1)}"
        )
    return width // heads


def rotation(length: int, size: int, like: Tensor, *, base: float = BASE) -> Tensor:
    """Complex factors of positions 0 … length - 1, shape (length, size/2).

    On the device of `like`, from angles in float32, or in float64 where `like` is.
    """
    wide = torch.promote_types(like.dtype, torch.float32)
    place = torch.arange(length, device=like.device, dtype=wide)
    pair = torch.arange(size // 2, device=like.device, dtype=wide)
    angle = place[:, None] * base ** (-2 * pair / size)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Queries or keys (..., N, size) turned by a `rotation` of their N positions, in x's dtype."""
    real = x.to(turn.real.dtype).reshape(*x.shape[:-1], -1, 2)
    return torch.view_as_real(torch.view_as_complex(real) * turn).flatten(-2).to(x.dtype)
