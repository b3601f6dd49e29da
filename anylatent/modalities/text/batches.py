"""Batches of texts: padded tokens and their mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from anylatent.core.modality import Item, pad_items


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Tokens padded with 0 to the longest; floats become float32, strings lists."""
    batch = pad_items(items)
    batch["mask"] = torch.arange(batch["tokens"].shape[1]) < batch["length"][:, None]
    return batch
