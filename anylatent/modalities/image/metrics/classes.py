"""How often the class of a picture is the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def labels(column: Tensor | Sequence[Any] | None, names: Sequence[str], count: int) -> Tensor:
    """A class column, indices or names, as indices; -1 where it is missing or not said."""
    if column is None:
        return torch.full((count,), -1)
    entries = column.tolist() if isinstance(column, Tensor) else list(column)
    if len(entries) != count:
        raise ValueError(f"a column of {len(entries)} entries does not fit {count} pictures")
    index: dict[str | int | None, int] = {
        name.casefold(): label for label, name in enumerate(names)
    }
    index |= {label: label for label in range(len(names))}
    index[None] = -1
    folded = [entry.casefold() if isinstance(entry, str) else entry for entry in entries]
    unknown = [entry for entry in folded if entry not in index]
    if unknown:
        raise ValueError(f"unknown class {unknown[0]!r}: allowed are {', '.join(names)}")
    return torch.tensor([index[entry] for entry in folded])


def shares(right: Tensor, asked: Tensor, names: Sequence[str], prefix: str) -> dict[str, float]:
    """The share that is right, the mean of the classes' own, and that of each class."""
    each = {
        f"{prefix}_{name}": float(right[asked == label].double().mean())
        for label, name in enumerate(names)
        if bool((asked == label).any())
    }
    overall = {prefix: float(right.double().mean())}
    return {**overall, f"{prefix}_macro": sum(each.values()) / len(each), **each}
