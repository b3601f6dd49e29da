"""Clips as latents: diffusion of their pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from anylatent.core.latents import Field, Latent, LatentSpec
from anylatent.core.modality import Batch, DataSpace
from anylatent.modalities.image.likelihood import log_prob
from anylatent.modalities.video.clips import Clips


class Frames(DataSpace):
    """z (None, C, H, W), the numbers of the frames of a clip in [-1, 1]."""

    def __init__(self, shape: Sequence[int], rate: float, lossless: bool) -> None:
        self.shape, self.rate, self.lossless = tuple(shape), rate, lossless

    @property
    def spec(self) -> LatentSpec:
        if len(self.shape) != 3:
            raise ValueError(f"frames have a shape (C, H, W), got {self.shape}: see Data.facts")
        return LatentSpec({"z": Field((None, *self.shape), channels=1)})

    def lift(self, batch: Batch) -> Latent:
        return self.spec.wrap({"z": batch["video"]}, {"z": batch["mask"]})

    def lower(self, z: Latent) -> Clips:
        return Clips(z["z"], z.lengths("z"), self.rate, lossless=self.lossless)

    def log_prob(self, batch: Batch, z: Latent) -> Tensor:
        """Of the bytes of frames around z, see `image.likelihood`."""
        mask: Tensor = batch["mask"]
        each = log_prob(batch["video"][mask], z["z"][mask])
        total = each.new_zeros(mask.shape)
        total[mask] = each
        return total.sum(1)
