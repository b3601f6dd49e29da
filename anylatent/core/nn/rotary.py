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
    """Factors of positions 0 … length - 1: real and imaginary parts, (length, size/2, 2).

    On the device of `like`, from angles in float32, or in float64 where `like` is.
    """
    wide = torch.promote_types(like.dtype, torch.float32)
    place = torch.arange(length, device=like.device, dtype=wide)
    pair = torch.arange(size // 2, device=like.device, dtype=wide)
    angle = place[:, None] * base ** (-2 * pair / size)
    if _by_complex(angle):
        return torch.view_as_real(torch.polar(torch.ones_like(angle), angle))
    return torch.stack([angle.cos(), angle.sin()], -1)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Queries or keys (..., N, size) turned by a `rotation` of their N positions, in x's dtype."""
    pairs = x.to(turn.dtype).reshape(*x.shape[:-1], -1, 2)
    if _by_complex(x):
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turn))
    else:
        turned = _turned(pairs, turn)
    return turned.flatten(-2).to(x.dtype)


def _by_complex(x: Tensor) -> bool:
    """Whether to compute with complex numbers: three times faster on a CPU. On a GPU, and where a
    network is compiled, real ones are, as no compiler takes others."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _turned(pairs: Tensor, turn: Tensor) -> Tensor:
    """The products of two tables of complex numbers (..., 2)."""
    (a, b), (c, s) = pairs.unbind(-1), turn.unbind(-1)
    return torch.stack([a * c - b * s, a * s + b * c], -1)
