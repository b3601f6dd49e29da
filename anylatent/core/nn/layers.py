"""Small layers: zero initialisation, convolutions by number of axes, group norms.

Nothing here mixes samples of a batch: no batch norm anywhere, so sample i of a batch equals
sample i alone.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
Layer = TypeVar("Layer", nn.Parameter, nn.Embedding, nn.Linear)
_OUTER = "_anylatent_outer"

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


def zero(module: M) -> M:
    """Sets all parameters to zero: a residual branch that ends in it starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def convolution(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, axes: int = 2
) -> nn.Module:
    """A convolution over 1, 2 or 3 axes, (B, inputs, ...) to (B, outputs, ...), "same" padding.

    With stride 2 a side of n becomes ceil(n / 2).
    """
    if axes not in CONVOLUTIONS:
        raise ValueError(f"convolutions run over {list(CONVOLUTIONS)} axes, got axes={axes}")
    return CONVOLUTIONS[axes](inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def groups_of(channels: int, most: int = 32, least: int = 4) -> int:
    """The largest number of groups up to `most` that divides, `least` channels a group at least."""
    return next(n for n in range(max(1, min(most, channels // least)), 0, -1) if channels % n == 0)


def exact(x: Tensor) -> Tensor:
    """x in float32 where it is bfloat16 on the CPU, whose bfloat16 kernels for norms and attention
    are several times slower than those for float32; x itself elsewhere."""
    return x.float() if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x


class GroupNorm(nn.GroupNorm):
    """Group norm (1803.08494) with a number of groups that fits the channels."""

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__(groups_of(channels), channels, eps=1e-5, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = exact(x)
        if self.affine and torch.is_grad_enabled() and _crashes(x, self.weight):
            x = x.detach().requires_grad_()
        return super().forward(x)


def _crashes(x: Tensor, weight: Tensor) -> bool:
    """Whether torch's group norm would crash in its backward pass: on the CPU, for channels last,
    where the gain learns and nothing before it does."""
    frozen = weight.requires_grad and not x.requires_grad and not torch.compiler.is_compiling()
    return frozen and x.device.type == "cpu" and not x.is_contiguous()


class AdaptiveGroupNorm(nn.Module):
    """Group norm whose scale and shift come from an embedding: norm(x)·(1 + scale) + shift.

    x: (B, C, ...), embedding: (B, E). Equals a plain group norm at initialisation. 2105.05233.
    """

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, affine=False)
        self.modulation = zero(nn.Linear(embedding, 2 * channels))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = (
            self.modulation(embedding).unflatten(1, (-1,) + (1,) * (x.ndim - 2)).chunk(2, 1)
        )
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class RMSNorm(nn.RMSNorm):
    """x over its root mean square along the last axis, times a gain (1910.07467). On a CPU, where
    torch has no fused one, half of the time goes by a backward pass that is written out."""

    def forward(self, x: Tensor) -> Tensor:
        plain = x.dtype in (torch.float32, torch.float64) and self.weight is not None
        transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        if x.device.type != "cpu" or not plain or transformed or self.eps is not None:
            return super().forward(x)
        found: Tensor = _RootMeanSquare.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return found


class _RootMeanSquare(torch.autograd.Function):
    """y = w·n with n = x/√(mean x² + ε); dx = (g - n·mean(g·n))/√(...) for g = w·dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        share = length.square_().div_(x.shape[-1]).add_(torch.finfo(x.dtype).eps).rsqrt_()
        ctx.save_for_backward(x, share, weight)
        normed: Tensor = x * share
        return normed.mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        (gradient,), (x, share, weight) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():  # a slope of the slope is asked for, and x moves this too
            share = torch.rsqrt(x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps)
        normed = x * share
        gain = None
        if ctx.needs_input_grad[1]:
            gain = gradient * normed
            gain = gain.sum(tuple(range(x.ndim - 1))) if x.ndim > 1 else gain
        inner = gradient * weight
        along = (inner * normed).mean(-1, keepdim=True)
        return (inner - normed * along) * share, gain


def per_token(vector: Tensor) -> Tensor:
    """Vectors of samples, (B, C), or of tokens, (B, N, C), beside tokens (B, N, C)."""
    return vector[:, None] if vector.ndim == 2 else vector


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift for tokens x: (B, N, C) and vectors (B, C) or (B, N, C)."""
    return torch.addcmul(per_token(shift), x, 1 + per_token(scale))


def outer(layer: Layer) -> Layer:
    """The layer, or parameter, marked as a table of tokens: no hidden weight to an optimiser."""
    own = [layer] if isinstance(layer, nn.Parameter) else list(layer.parameters())
    for parameter in own:
        setattr(parameter, _OUTER, True)
    return layer


def is_outer(parameter: nn.Parameter) -> bool:
    return getattr(parameter, _OUTER, False)
