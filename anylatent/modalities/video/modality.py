"""Clips: padded batches of frames in [-1, 1], their lengths, and frames that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Noise
from anylatent.core.modality import Batch, Item, Modality
from anylatent.modalities.video.batches import collate
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.data_space import Frames
from anylatent.modalities.video.given import GivenFrames
from anylatent.modalities.video.sizes import Lengths


class VideoModality(Modality):
    """Clips of any length with frames of one size, outputs `Clips`.

    A batch has `video` (B, T, C, H, W) in [-1, 1], 0 at padding, `mask` (B, T), `frames` (B,) and
    the columns of the data. Samples have as many frames as the windows that were learned from, or
    as `cond.frames` says, up to `most`. `flip` mirrors half of the clips in training, each as a
    whole.
    """

    data_space: Frames
    sizes: Lengths
    given: GivenFrames

    def __init__(
        self,
        shape: Sequence[int] = (),
        rate: float = 8.0,
        frames: int = 16,
        *,
        flip: bool = False,
        most: int = 1024,
    ) -> None:
        """`shape` (C, H, W) of a frame, `rate` and `frames` are facts of the data."""
        self.flip, self.rate = flip, rate
        self.data_space = Frames(shape, rate, lossless=False)
        self.sizes = Lengths(frames, most)
        self.given = GivenFrames(shape, rate)

    @classmethod
    def inherited(cls, name: str, parts: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """A model of pictures becomes one of clips: its autoencoder that of frames, its backbone
        one with layers over time, its data clips of one frame. Conditions, process and sampling
        stay."""
        if name != "image":
            return None
        found = {k: v for k, v in parts.items() if k not in ("modality", "data", "backbone")}
        if "data" in parts:
            found["data"] = {"name": "stills", "pictures": dict(parts["data"])}
        found["autoencoder"] = {"name": "frames", "image": dict(parts["autoencoder"])}
        if parts["autoencoder"]["name"] == "identity":  # pixels are pixels
            found["autoencoder"] = {"name": "identity"}
        if (backbone := parts.get("backbone")) is not None:
            kind = "video_dit" if backbone["name"] == "dit" else "video_unet"
            found["backbone"] = {"name": kind, "image": dict(backbone)}
        return found

    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """Frames padded with 0 to the longest; floats become float32, strings lists."""
        return collate(items)

    def augment(self, batch: Batch, noise: Noise) -> Batch:
        if not self.flip:
            return batch
        video: Tensor = batch["video"]
        mirrored = (noise.uniform() < 0.5).to(video.device)[:, None, None, None, None]
        flipped = torch.where(mirrored, video.flip(-1), video)
        return {**batch, "video": flipped, "first": flipped}

    def unit(self, batch: Batch) -> tuple[str, Tensor]:
        return "dimension", batch["mask"].sum(1) * batch["video"][0, 0].numel()

    def originals(self, batch: Batch) -> Clips:
        return Clips(batch["video"], batch["frames"], self.rate)
