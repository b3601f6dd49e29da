"""Pictures: batches of tensors (B, C, H, W) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anylatent.core.latents import Noise
from anylatent.core.modality import Batch, Modality
from anylatent.modalities.image.data_space import Pixels
from anylatent.modalities.image.pictures import Pictures


class ImageModality(Modality):
    """Pictures of one size, outputs `Pictures`. `flip` mirrors half of them while the autoencoder
    learns."""

    data_space: Pixels

    def __init__(self, shape: Sequence[int] = (), *, flip: bool = False) -> None:
        """`shape` (C, H, W) is that of the data."""
        self.data_space, self.flip = Pixels(shape), flip

    def augment(self, batch: Batch, noise: Noise) -> Batch:
        if not self.flip:
            return batch
        image: Tensor = batch["image"]
        mirrored = (noise.uniform() < 0.5).to(image.device)[:, None, None, None]
        return {**batch, "image": torch.where(mirrored, image.flip(-1), image)}

    def unit(self, batch: Batch) -> tuple[str, Tensor]:
        image: Tensor = batch["image"]
        return "dimension", torch.full((len(image),), image[0].numel())

    def originals(self, batch: Batch) -> Pictures:
        return Pictures(batch["image"])
