"""Items of data, batches of them, and how one becomes the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from anylatent.core.support.columns import Window

Batch: TypeAlias = Mapping[str, Any]
"""What a modality's `collate` returns: tensors of shape (B, ...) and lists of length B by name."""


def move(batch: Batch, device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


Item: TypeAlias = dict[str, Any]
"""One sample of a data set: tensors, numbers and strings by column name."""


def fetch(dataset: Any, indices: Sequence[int | Window]) -> list[Item]:
    """Items of a data set, or windows of them, at once where it can."""
    if hasattr(dataset, "__getitems__"):
        return list(dataset.__getitems__(list(indices)))
    return [dataset[index] for index in indices]


def stack_items(items: Sequence[Item]) -> dict[str, object]:
    """Columns from items: tensors are stacked, numbers become tensors, the rest lists."""
    batch: dict[str, object] = {}
    for name in items[0]:
        column = [item[name] for item in items]
        if isinstance(column[0], Tensor):
            batch[name] = torch.stack(column)
        elif isinstance(column[0], (int, float)):
            batch[name] = torch.tensor(column)
        else:
            batch[name] = column
    return batch


def pad_items(items: Sequence[Item]) -> dict[str, Any]:
    """Columns from items of different lengths: tensors padded with 0 at the end of their first axis
    to the longest, floats as float32, other numbers as int64, the rest lists."""
    batch: dict[str, Any] = {}
    for name in items[0]:
        column = [item[name] for item in items]
        if isinstance(column[0], Tensor):
            batch[name] = pad_sequence(column, batch_first=True)
        elif isinstance(column[0], (int, float)):
            kind = torch.float32 if isinstance(column[0], float) else torch.long
            batch[name] = torch.tensor(column, dtype=kind)
        else:
            batch[name] = column
    return batch
