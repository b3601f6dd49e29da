"""Entries of a latent: frames, tokens, points, whatever lies along the first axis of its fields.

Where all fields have the same entries (`LatentSpec.has_entries`), each may have a time of its own,
(B, T). What is known of a sample are masks by field, over any leading axes: (B, N), (B, 1, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from anylatent.core.latents.latent import Latent, wide


def over(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of leading axes with one axis for each of x, against which it broadcasts."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


def cut(x: Latent, rows: Tensor, places: Tensor) -> Latent:
    """Some entries of some samples, as samples of their own: those at `places` (R, W) of the
    samples `rows` (R,). A place that there is not, such as -1, is padding.

    Raises ValueError where the entries are no fields' first axis, of variable length.
    """
    for name, field in x.spec.fields.items():
        if not field.variable or field.centred:
            what = "are centred" if field.centred else "have a fixed length"
            raise ValueError(f"the entries of '{name}' {what}: no part of them is a sample: {x}")
    longest = x.entries
    there = (places >= 0) & (places < longest)
    near = places.clamp(0, longest - 1)
    masks = {name: mask[rows[:, None], near] & there for name, mask in x.masks.items()}
    near_ones = {name: value[rows[:, None], near] for name, value in x.parts.items()}
    parts = {name: torch.where(over(masks[name], z), z, 0) for name, z in near_ones.items()}
    return Latent(parts, masks, x.spec)


def free_mse(
    x: Latent, other: Latent, like: Tensor, given: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Squared distance per degree of freedom of what is not given, and how many these are.

    Both in the shape of `like`, (B,) or (B, T): per sample or per entry.
    """
    if like.ndim < 2 and not given:
        return x.mse(other), x.dim
    if like.ndim == 2 and like.shape[1] != x.entries:
        raise ValueError(f"times of shape {tuple(like.shape)} for {x.entries} entries of {x}")
    total, count = torch.zeros((), device=x.device), torch.zeros((), device=x.device)
    for name, value in (x - other).parts.items():
        leading = value.shape[: like.ndim]
        free = _free(x, name, given.get(name))
        square = torch.where(free, wide(value), 0).square()
        total = total + square.reshape(*leading, -1).sum(-1)
        count = count + free.expand_as(value).reshape(*leading, -1).sum(-1)
        if x.spec.fields[name].centred:
            count = count - math.prod(x.spec.fields[name].rest) * _whole(given.get(name))
    return total / count.clamp(min=1), count


def _free(x: Latent, name: str, given: Tensor | None) -> Tensor:
    """Which numbers of a field are neither padding nor given; broadcasts against it."""
    value, mask = x[name], x.masks.get(name)
    free = torch.ones((1,) * value.ndim, dtype=torch.bool, device=value.device)
    free = free if mask is None else over(mask, value)
    return free if given is None else free & ~over(given.to(value.device), value)


def _whole(given: Tensor | None) -> Tensor | float:
    """1 for the samples of which nothing is given: else the place of a centred field is free."""
    return 1.0 if given is None else (~given.flatten(1).any(1)).float()
