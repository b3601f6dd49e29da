"""Which entries of a sample are given while a model learns to complete the others.

Each rule draws, per sample, a mask of given entries among the valid ones and leaves at least one to
be found. What is given is shown to the network as clean as the data: `reveal`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from anylatent.core.latents.latent import Latent
from anylatent.core.latents.noise import Noise
from anylatent.core.registry import group, register


class Masking(ABC):
    """(valid (B, N), noise) → given (B, N), both bool; None where nothing ever is given."""

    @abstractmethod
    def __call__(self, valid: Tensor, noise: Noise) -> Tensor | None: ...


group("masking", Masking)


@register("masking", "none")
class Nothing(Masking):
    """Nothing is given."""

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor | None:
        return None


@register("masking", "prefix")
class Prefix(Masking):
    """The first k entries, k uniform on 0 … n - 1."""

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        u, lengths = _uniform(valid, noise), valid.sum(1)
        return _places(valid) < (u * lengths).floor()[:, None]


@register("masking", "scattered")
class Scattered(Masking):
    """Each entry with the same probability, itself uniform on [0, 1]; one at random never."""

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        share, free = _uniform(valid, noise), _uniform(valid, noise)
        u = noise.uniform(valid.shape[1]).to(valid.device, non_blocking=True)
        never = _places(valid) == (free * valid.sum(1)).floor()[:, None]
        return valid & (u < share[:, None]) & ~never


@register("masking", "spans")
class Spans(Masking):
    """All but 1 to `most` spans with uniform ends, as in infilling (2211.15089)."""

    def __init__(self, most: int = 4) -> None:
        if most < 1:
            raise ValueError(f"at least one span must be left to find, got most={most}")
        self.most = most

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        count = (_uniform(valid, noise) * self.most).floor() + 1
        ends = noise.uniform(self.most, 2).to(valid.device, non_blocking=True)
        ends = (ends * valid.sum(1)[:, None, None]).floor().sort(-1).values
        place = _places(valid)[:, None]
        inside = (place >= ends[..., :1]) & (place <= ends[..., 1:])
        drawn = torch.arange(self.most, device=valid.device) < count[:, None]
        return valid & ~(inside & drawn[..., None]).any(1)


@register("masking", "mixed")
class Mixed(Masking):
    """Nothing for a share `free` of the samples; a prefix, scattered entries or spans for the rest,
    as often."""

    def __init__(self, free: float = 0.5) -> None:
        if not 0 <= free <= 1:
            raise ValueError(f"free is a share of the samples, got {free}")
        self.free = free
        self.rules: tuple[Callable[[Tensor, Noise], Tensor], ...] = (Prefix(), Scattered(), Spans())

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor:
        u = _uniform(valid, noise)
        rule = ((u - self.free) / max(1 - self.free, 1e-12) * len(self.rules)).floor()
        given = torch.zeros_like(valid)
        for index, draw in enumerate(self.rules):
            given = torch.where((rule == index)[:, None], draw(valid, noise), given)
        return given  # below `free` no rule has its index


def reveal(x: Latent, x0: Latent, given: Mapping[str, Tensor]) -> Latent:
    """x_t with the given entries, masks (B, N) by field, as clean as those of x0."""
    parts = dict(x.parts)
    for name, mask in given.items():
        shaped = mask.reshape(mask.shape + (1,) * (parts[name].ndim - 2))
        parts[name] = torch.where(shaped, x0[name].to(parts[name].dtype), parts[name])
    return Latent(parts, x.masks, x.spec)


def _uniform(valid: Tensor, noise: Noise) -> Tensor:
    """One number per sample, (B,)."""
    return noise.uniform().to(valid.device, non_blocking=True)


def _places(valid: Tensor) -> Tensor:
    return torch.arange(valid.shape[1], device=valid.device)[None]
