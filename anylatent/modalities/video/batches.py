"""Batches of clips: padded frames and their mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from anylatent.core.modality import Item, pad_items


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Frames padded with 0 to the longest, `video` (B, T, C, H, W) and `mask` (B, T); other columns
    likewise. `first` are all frames, of whose windows the first ones may be conditions."""
    batch = pad_items([{k: v for k, v in item.items() if k != "first"} for item in items])
    batch["first"] = batch["video"]
    batch["mask"] = torch.arange(batch["video"].shape[1]) < batch["frames"][:, None]
    return batch
