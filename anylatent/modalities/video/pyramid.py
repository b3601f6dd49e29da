"""Clips in levels, for a cascade: key frames, the frames between them, all of them larger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.latents import Field, Latent, LatentSpec, Noise, Posterior
from anylatent.core.modality import Batch
from anylatent.core.registry import Maker
from anylatent.core.support.files import UserError
from anylatent.modalities.video.autoencoder import FramesAutoencoder
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.lattice import apart, interleaved

EVERY = 4


class Pyramid(Autoencoder):
    """Clips of T frames as latents of fixed sizes, by an autoencoder of `frames`: `key_frames`
    (keys, C, h, w); `levels` times three frames in each gap, `between_1`, `between_2`, ...;
    and, where the last level is `larger`, `full` (T, C, 2·h, 2·w), all of them at twice the size.

    T = (keys - 1)·4^levels + 1, such as 33 or 129. The fields of generator=cascade, as in Align
    Your Latents (2304.08818). Frames of both sizes go through one autoencoder, whose loss is the
    mean of theirs. Of longer clips the first T frames count.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 32, 32),
        frames: Maker[Autoencoder] | None = None,
        *,
        keys: int = 9,
        levels: int = 1,
        larger: bool = True,
    ) -> None:
        super().__init__()
        if keys < 2 or levels < 0 or (not levels and not larger):
            raise UserError(
                f"autoencoder.keys={keys} and levels={levels}: at least two key frames, and a "
                "level between them or one that is larger"
            )
        made = FramesAutoencoder(shape) if frames is None else frames(shape=shape)
        if not isinstance(made, FramesAutoencoder):
            raise UserError(f"autoencoder.frames must be one of frames, not {type(made).__name__}")
        self.frames, self.levels, self.larger = made, levels, larger
        self.count = (keys - 1) * EVERY**levels + 1
        self._small = (_halved(made, shape) if larger else made,)  # whose weights are the same
        self.spec = self._spec(keys)
        self.alone, self.by_entry = made.alone, made.by_entry
        self.for_loss = [f"frames.{name}" for name in made.for_loss]

    @property
    def small(self) -> FramesAutoencoder:
        """That of the smaller frames."""
        return self._small[0]

    def _spec(self, keys: int) -> LatentSpec:
        counts, gaps = {"key_frames": keys}, keys - 1
        for level in range(1, self.levels + 1):
            counts[f"between_{level}"] = (EVERY - 1) * gaps
            gaps *= EVERY
        ((_, small),) = self.small.spec.fields.items()
        ((_, large),) = self.frames.spec.fields.items()
        fields = {n: Field((count, *small.rest), channels=1) for n, count in counts.items()}
        if self.larger:
            fields["full"] = Field((self.count, *large.rest), channels=1)
        return LatentSpec(fields)

    def equip(self) -> None:
        self.frames.equip()

    @property
    def adversary(self) -> nn.Module | None:
        return self.frames.adversary

    @adversary.setter
    def adversary(self, value: nn.Module | None) -> None:
        """It is the inner one's."""

    def encode(self, batch: Batch) -> Posterior:
        clip = self._cut(batch)
        small = self.small.encode(_batch(self._smaller(clip)))
        large = self.frames.encode(_batch(clip)) if self.larger else None
        mean = self._levels(small.mean, None if large is None else large.mean)
        if small.log_std is None:
            return Posterior(mean)
        return Posterior(
            mean, self._levels(small.log_std, None if large is None else large.log_std)
        )

    def decode(self, z: Latent) -> Clips:
        """Clips of the last level."""
        return self.frames.decode(self._clip(z))

    def restore(self, z: Latent) -> Latent:
        return self.frames.restore(self._clip(z))

    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], Any]:
        terms, output = self.frames.loss(batch, noise, step)
        if not self.larger:
            return terms, output
        small = {**batch, "video": self._smaller(batch["video"])}
        others, _ = self.small.loss(small, noise.apart(7), step)
        return {n: (x + others[n]) / 2 if n in others else x for n, x in terms.items()}, output

    def adversary_loss(self, batch: Batch, output: Any, step: int) -> dict[str, Tensor]:
        return self.frames.adversary_loss(batch, output, step)

    def log_prob(self, batch: Batch, z: Latent) -> Tensor | None:
        return self.frames.log_prob(_batch(self._cut(batch)), self._clip(z))

    def report(self) -> dict[str, float]:
        return self.frames.report()

    # ---- levels -------------------------------------------------------------------------------
    def _cut(self, batch: Batch) -> Tensor:
        """The frames of the levels. Raises UserError where clips are shorter."""
        lengths = batch["mask"].sum(1)
        if int(lengths.min()) < self.count:
            raise UserError(
                f"a clip of {int(lengths.min())} frames, and the levels of this pyramid are of "
                f"{self.count}: give data.frames={self.count}, or other autoencoder.keys and levels"
            )
        video: Tensor = batch["video"]
        return video[:, : self.count]

    def _smaller(self, video: Tensor) -> Tensor:
        if not self.larger:
            return video
        return torch.unflatten(avg_pool2d(video.flatten(0, 1), 2), 0, tuple(video.shape[:2]))

    def _levels(self, small: Latent, large: Latent | None) -> Latent:
        parts = apart(small[self.small.name], self.levels, EVERY)
        if large is not None:
            parts.append(large[self.frames.name])
        return self.spec.wrap(dict(zip(self.spec.fields, parts, strict=True)))

    def _clip(self, z: Latent) -> Latent:
        """The latents of the last level as a clip's."""
        names = [name for name in self.spec.fields if name != "full"]
        frames = z["full"] if self.larger else interleaved([z[name] for name in names])
        mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        return self.frames.spec.wrap({self.frames.name: frames}, {self.frames.name: mask})


def _batch(video: Tensor) -> Batch:
    """A batch of whole clips."""
    mask = torch.ones(video.shape[:2], dtype=torch.bool, device=video.device)
    return {"video": video, "mask": mask, "frames": mask.sum(1)}


def _halved(frames: FramesAutoencoder, shape: Sequence[int]) -> FramesAutoencoder:
    """The autoencoder for frames of half the size, with the same weights."""
    if shape[1] % 2 or shape[2] % 2:
        raise UserError(f"frames of {tuple(shape)} have no half size: give even sides")
    return frames.sized((shape[0], shape[1] // 2, shape[2] // 2))
