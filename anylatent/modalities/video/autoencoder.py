"""Each frame of a clip by an autoencoder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.latents import Field, Latent, LatentSpec, Noise, Posterior
from anylatent.core.modality import Batch
from anylatent.core.nn.guests import Guest
from anylatent.core.registry import Maker
from anylatent.core.support.files import UserError
from anylatent.modalities.image.autoencoder import ConvAutoencoder
from anylatent.modalities.image.modality import ImageModality
from anylatent.modalities.image.pictures import Pictures
from anylatent.modalities.video.clips import Clips


class FramesAutoencoder(Autoencoder):
    """Clips under the key "video", (B, T, C, H, W), frame by frame: latents `z` (None, C, h, w).

    `image` makes the autoencoder of pictures, of latents (C, h, w), whose losses and adversary are
    those of frames. Frames know nothing of one another here; `at_once` of them are encoded or
    decoded at a time where no gradients are wanted. Align Your Latents (2304.08818).
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 32, 32),
        image: Maker[Autoencoder] | None = None,
        rate: float = 8.0,
        *,
        at_once: int = 256,
    ) -> None:
        super().__init__()
        if at_once < 1:
            raise UserError(f"autoencoder.at_once={at_once}: at least one frame at a time")
        self.at_once = at_once
        self.image: Autoencoder = (
            ConvAutoencoder(shape)
            if image is None
            else image(shape=shape, modality=ImageModality(shape))
        )
        self.name, field = frame_field(self.image.spec)
        self.spec, self.rate = LatentSpec({self.name: field}), rate
        self.alone, self.for_loss = self.image.alone, [f"image.{n}" for n in self.image.for_loss]

    def equip(self) -> None:
        self.image.equip()

    @property
    def adversary(self) -> nn.Module | None:
        """That of the frames."""
        return self.image.adversary

    @adversary.setter
    def adversary(self, value: nn.Module | None) -> None:
        """It is the inner one's."""

    def encode(self, batch: Batch) -> Posterior:
        video = self._video(batch)
        found = [self.image.encode({"image": part}) for part in self._parts(video.flatten(0, 1))]
        mean = self._clip([part.mean for part in found], batch)
        spread = [part.log_std for part in found if part.log_std is not None]
        return Posterior(mean, self._clip(spread, batch) if spread else None)

    def decode(self, z: Latent, guest: Guest | None = None) -> Clips:
        """Clips, about in [-1, 1] but not clamped, so that gradients pass."""
        frames = z[self.name].flatten(0, 1)
        told = {} if guest is None else {"guest": guest}
        parts = self._parts(frames) if guest is None else [frames]
        pictures = torch.cat([self._pictures(part, **told) for part in parts])
        return Clips(torch.unflatten(pictures, 0, (z.batch, -1)), z.lengths(self.name), self.rate)

    def restore(self, z: Latent) -> Latent:
        shape = (None, *self._pictures(z[self.name][:1, 0]).shape[1:])
        spec = LatentSpec({"z": Field(shape, channels=1)})
        return spec.wrap({"z": self.decode(z).frames}, {"z": z.masks[self.name]})

    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], Any]:
        """The means over the frames of each clip."""
        video, mask = self._video(batch), batch["mask"]
        frames = {"image": video.flatten(0, 1)}
        terms, output = self.image.loss(frames, noise.entries(video.shape[1]), step)
        return {name: _over_frames(term, mask) for name, term in terms.items()}, output

    def adversary_loss(self, batch: Batch, output: Any, step: int) -> dict[str, Tensor]:
        frames = {"image": self._video(batch).flatten(0, 1)}
        terms = self.image.adversary_loss(frames, output, step)
        return {name: _over_frames(term, batch["mask"]) for name, term in terms.items()}

    def log_prob(self, batch: Batch, z: Latent) -> Tensor | None:
        inner = self.image.spec.wrap({self.name: z[self.name].flatten(0, 1)})
        each = self.image.log_prob({"image": self._video(batch).flatten(0, 1)}, inner)
        if each is None:
            return None
        return torch.where(batch["mask"], torch.unflatten(each, 0, (z.batch, -1)), 0).sum(1)

    def report(self) -> dict[str, float]:
        return self.image.report()

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        """Some at a time, where nothing remembers them."""
        return [x] if torch.is_grad_enabled() else torch.split(x, self.at_once)

    def _pictures(self, z: Tensor, **told: Any) -> Tensor:
        found = self.image.decode(self.image.spec.wrap({self.name: z}), **told)
        if not isinstance(found, Pictures):
            raise UserError(f"autoencoder.image must make pictures, not {type(found).__name__}")
        return found.tensor

    def _clip(self, parts: Sequence[Latent], batch: Batch) -> Latent:
        frames = torch.cat([part[self.name] for part in parts])
        video: Tensor = batch["video"]
        return self.spec.wrap(
            {self.name: torch.unflatten(frames, 0, tuple(video.shape[:2]))},
            {self.name: batch["mask"]},
        )

    def _video(self, batch: Batch) -> Tensor:
        video = batch["video"]
        if not isinstance(video, Tensor) or video.ndim != 5:
            got = tuple(video.shape) if isinstance(video, Tensor) else type(video).__name__
            raise ValueError(f"this autoencoder takes clips (B, T, C, H, W), got {got}")
        return video


def frame_field(spec: LatentSpec) -> tuple[str, Field]:
    """The name of the only field (C, h, w) of pictures' latents, and that of clips' latents, (None,
    C, h, w). Raises UserError for other latents."""
    if len(spec.fields) == 1:
        ((name, field),) = spec.fields.items()
        if len(field.shape) == 3 and not field.variable and field.channels in (None, 0):
            channels = None if field.channels is None else 1
            return name, Field((None, *field.shape), channels=channels, std=field.std)
    raise UserError(f"frames need latents of one field (C, H, W), got {spec}: choose another image")


def _over_frames(term: Tensor, mask: Tensor) -> Tensor:
    """The mean over a clip's frames of what each has, (B·T,) → (B,); others as they are."""
    if term.ndim != 1 or term.numel() != mask.numel():
        return term
    each = torch.where(mask, term.view(mask.shape), 0)
    return each.sum(1) / mask.sum(1)
