"""Each frame of a clip by an autoencoder of pictures, with layers over time in its decoder."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.latents import Field, Latent, LatentSpec, Noise, Posterior
from anylatent.core.modality import Batch
from anylatent.core.nn.guests import Both, Guest
from anylatent.core.registry import Maker
from anylatent.core.support.files import UserError
from anylatent.modalities.image.autoencoder import ConvAutoencoder
from anylatent.modalities.image.modality import ImageModality
from anylatent.modalities.image.pictures import Pictures
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.critic import Critic
from anylatent.modalities.video.folding import frame_field, in_pieces, over_frames
from anylatent.modalities.video.temporal import Temporal


class FramesAutoencoder(Autoencoder):
    """Clips under the key "video", (B, T, C, H, W), frame by frame: latents `z` (None, C, h, w).

    `image` makes the autoencoder of pictures, of latents (C, h, w), whose losses and adversary are
    those of frames. With `temporal` its decoder has convolutions over `kernel` frames after each of
    its layers, of which `gate` enters at the start: with 0 it decodes as it did. `adversary` then
    judges clips, (B, T, C, H, W), in place of one of frames, after `adversary_start` steps and at
    most `adversary_weight` times as strongly as the other losses. `at_once` frames are encoded or
    decoded at a time where no gradients are wanted, and around them as many as the convolutions
    see: the result is that of all at once. Align Your Latents (2304.08818).
    """

    for_loss: Sequence[str]

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 32, 32),
        image: Maker[Autoencoder] | None = None,
        adversary: Maker[nn.Module | None] | None = None,
        rate: float = 8.0,
        *,
        at_once: int = 32,
        temporal: bool = False,
        kernel: int = 3,
        gate: float = 0.0,
        adversary_weight: float = 0.1,
        adversary_start: int = 1000,
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
        self.temporal = _over_time(self.image, kernel, gate) if temporal else None
        self.alone, self.by_entry = self.image.alone, not temporal
        self.critic = Critic(adversary, adversary_weight, adversary_start)
        self.for_loss = [*(f"image.{n}" for n in self.image.for_loss), "critic"]

    def sized(self, shape: tuple[int, int, int]) -> FramesAutoencoder:
        """The same, with the same weights, for frames of other sides, which no adversary judges."""
        if not isinstance(self.image, ConvAutoencoder):
            raise UserError(
                f"autoencoder.image={type(self.image).__name__} codes pictures of one size alone: "
                "use autoencoder.image=conv"
            )
        twin, image = copy(self), self.image.sized(shape)
        own = {"image": image, "critic": Critic(None, 0.0, 0)}
        twin._modules = {**self._modules, **own}  # a copy shares its dictionary
        twin.spec = LatentSpec({self.name: frame_field(image.spec)[1]})
        return twin

    def equip(self) -> None:
        self.image.equip()
        self.critic.equip()
        if self.critic.network is not None:
            if self.temporal is None:
                raise UserError(
                    "autoencoder.adversary judges frames in a row, which this decoder makes one by "
                    "one: add autoencoder.temporal=true, or give it to autoencoder.image"
                )
            self.image.adversary = None

    @property
    def adversary(self) -> nn.Module | None:
        """That of clips, or else that of the frames."""
        return self.image.adversary if self.critic.network is None else self.critic.network

    @adversary.setter
    def adversary(self, value: nn.Module | None) -> None:
        """It is the inner one's."""

    def encode(self, batch: Batch) -> Posterior:
        video = _video(batch)
        found = [self.image.encode({"image": part}) for part in self._parts(video.flatten(0, 1))]
        mean = self._clip([part.mean for part in found], batch)
        spread = [part.log_std for part in found if part.log_std is not None]
        return Posterior(mean, self._clip(spread, batch) if spread else None)

    def decode(self, z: Latent, guest: Guest | None = None) -> Clips:
        """Clips, about in [-1, 1] but not clamped, so that gradients pass."""
        whole = torch.is_grad_enabled() or guest is not None
        reach = 0 if self.temporal is None else self.temporal.reach or 0
        frames = (
            self._frames(z, guest) if whole else in_pieces(z, self.at_once, reach, self._frames)
        )
        return Clips(frames, z.lengths(self.name), self.rate)

    def restore(self, z: Latent) -> Latent:
        frames = self.decode(z).frames
        spec = LatentSpec({"z": Field((None, *frames.shape[2:]), channels=1)})
        return spec.wrap({"z": frames}, {"z": z.masks[self.name]})

    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], Any]:
        """The means over the frames of each clip."""
        video, mask = _video(batch), batch["mask"]
        frames, each = {"image": video.flatten(0, 1)}, noise.entries(video.shape[1])
        terms, output = self.image.loss(frames, each, step, **self._told(len(video), mask))
        terms = {name: over_frames(term, mask) for name, term in terms.items()}
        return self.critic.judged(terms, output, mask, step), output

    def adversary_loss(self, batch: Batch, output: Any, step: int) -> dict[str, Tensor]:
        if self.critic.network is not None:
            return self.critic.loss(_video(batch), output, batch["mask"], step)
        terms = self.image.adversary_loss({"image": _video(batch).flatten(0, 1)}, output, step)
        return {name: over_frames(term, batch["mask"]) for name, term in terms.items()}

    def log_prob(self, batch: Batch, z: Latent) -> Tensor | None:
        inner, mask = self.image.spec.wrap({self.name: z[self.name].flatten(0, 1)}), batch["mask"]
        frames = {"image": _video(batch).flatten(0, 1)}
        each = self.image.log_prob(frames, inner, **self._told(z.batch, mask))
        if each is None:
            return None
        return torch.where(mask, torch.unflatten(each, 0, (z.batch, -1)), 0).sum(1)

    def report(self) -> dict[str, float]:
        return self.image.report()

    # ---- frames -------------------------------------------------------------------------------
    def _told(self, batch: int, mask: Tensor | None, guest: Guest | None = None) -> dict[str, Any]:
        """The guest of the decoder, where it has any, of the frames of so many clips."""
        own = None if self.temporal is None else self.temporal.of(batch, mask)
        found = guest if own is None else own if guest is None else Both(own, guest)
        return {} if found is None else {"guest": found}

    def _frames(self, z: Latent, guest: Guest | None = None) -> Tensor:
        """Of all at once, (B, T, C, H, W)."""
        mask = None if z.full else z.masks[self.name]
        inner = self.image.spec.wrap({self.name: z[self.name].flatten(0, 1)})
        found = self.image.decode(inner, **self._told(z.batch, mask, guest))
        if not isinstance(found, Pictures):
            raise UserError(f"autoencoder.image must make pictures, not {type(found).__name__}")
        return torch.unflatten(found.tensor, 0, (z.batch, -1))

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        """Some at a time, where nothing remembers them."""
        return [x] if torch.is_grad_enabled() else torch.split(x, self.at_once)

    def _clip(self, parts: Sequence[Latent], batch: Batch) -> Latent:
        frames = torch.cat([part[self.name] for part in parts])
        video: Tensor = batch["video"]
        return self.spec.wrap(
            {self.name: torch.unflatten(frames, 0, tuple(video.shape[:2]))},
            {self.name: batch["mask"]},
        )


def _video(batch: Batch) -> Tensor:
    video = batch["video"]
    if not isinstance(video, Tensor) or video.ndim != 5:
        got = tuple(video.shape) if isinstance(video, Tensor) else type(video).__name__
        raise ValueError(f"this autoencoder takes clips (B, T, C, H, W), got {got}")
    return video


def _over_time(image: Autoencoder, kernel: int, gate: float) -> Temporal:
    """Convolutions over time for the decoder of pictures."""
    sites = getattr(image, "sites", ())
    if not sites:
        raise UserError(
            f"autoencoder.temporal=true: the decoder of {type(image).__name__} has no sites where "
            "layers over time could be; use autoencoder.image=conv, or leave it out"
        )
    return Temporal(sites, heads=0, kernel=kernel, gate=gate)
