"""Batches of molecules: padded atoms and their mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Noise
from anylatent.core.modality import Batch, Item, pad_items
from anylatent.modalities.molecule.elements import atomic_numbers
from anylatent.modalities.molecule.molecules import Molecules


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Atoms padded to the largest of the items; floats become float32, texts lists."""
    batch = pad_items(items)
    batch["mask"] = torch.arange(batch["x"].shape[1]) < batch["atoms"][:, None]
    return batch


def rotated(batch: Batch, noise: Noise) -> Batch:
    """With a rotation of each sample, uniform, that mirrors half of them."""
    x: Tensor = batch["x"]
    q, r = torch.linalg.qr(noise.normal(3, 3).double())
    turn = (q * r.diagonal(dim1=1, dim2=2).sign()[:, None]).to(x)[:, None]
    turned = sum(x[..., i, None] * turn[..., i, :] for i in range(3))  # the same at any padding
    return {**batch, "x": turned}


def unpacked(batch: Batch, elements: Sequence[str]) -> Molecules:
    """The molecules of a batch whose elements are places among these."""
    z = atomic_numbers(batch["element"], elements)
    return Molecules.unpack(
        batch["x"], z, batch["charge"], batch["mask"], hydrogens="H" in elements
    )
