"""A network of pictures that has become one of clips."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.guests import Both, Guest
from anylatent.core.nn.unet import UNet
from anylatent.core.process import LOG_SNR_LIMIT
from anylatent.core.registry import Maker
from anylatent.modalities.video.folding import Folding, frame_conditions, frame_spec
from anylatent.modalities.video.lattice import COARSE, SPACING, Coarser
from anylatent.modalities.video.temporal import Temporal

CLEAN = -LOG_SNR_LIMIT / 4
"""The c_noise of a frame without noise."""


class Inflated(Backbone):
    """The frames of clips through any network of pictures, `image`, with layers over time after its
    layers over space. Align Your Latents (2304.08818), VDM (2204.03458).

    The frames are a batch of pictures to it, each with its own noise level and conditions; where
    conditions have an entry for each frame (vectors (None, D), latents (None, C, H, W), maps (B, T,
    C, H, W)), each has its own. Layers over time are convolutions over `kernel` frames, and
    attention of `heads` heads where the network attends; `gate` is how much of them enters at the
    start: with 0 the clips' model is the pictures' model on each frame. Without `layers` there
    are none, and only a guest lets frames know of one another. Any length works.

    In a cascade, told of a coarser clip (latents of so many frames), it makes the same frames
    larger, or those in its gaps: each gap a window with its two ends clean, told how many there
    are.
    """

    per_entry = True
    apart = True

    def __init__(
        self,
        spec: LatentSpec | None = None,
        conditions: ConditionSpec | None = None,
        image: Maker[Backbone] | None = None,
        *,
        heads: int = 4,
        kernel: int = 3,
        gate: float = 0.0,
        layers: bool = True,
    ) -> None:
        super().__init__()
        usual = LatentSpec({"z": Field((None, 4, 8, 8), channels=1)})
        self.spec = usual if spec is None else spec
        self.conditions = ConditionSpec() if conditions is None else conditions
        self.name, self.frame = frame_spec(self.spec)
        self.coarser = _coarser(self.spec, self.conditions)
        known = self.conditions if self.coarser is None else self.coarser.spec(self.conditions)
        self.folding, inner = Folding(known), frame_conditions(known)
        told: dict[str, Any] = {"spec": self.frame, "conditions": inner}
        self.image = UNet(**told) if image is None else image(**told)
        self.temporal = Temporal(self.image.sites, heads, kernel, gate) if layers else Guest()
        self.sites = self.image.sites

    def lent(self, spec: LatentSpec, conditions: ConditionSpec) -> Backbone:
        return Lent(self, spec, conditions)

    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        level = self.levels(c_noise, x)
        found = self.made(x[self.name], x, level, cond, guest, self.coarser)
        return x.replace(**{self.name: found})

    def made(
        self,
        frames: Tensor,
        x: Latent,
        level: Tensor,
        cond: Condition | None,
        guest: Guest | None,
        coarser: Coarser | None,
    ) -> Tensor:
        """What becomes of the frames (B, T, C, H, W) of x, told of a coarser clip, if any."""
        batch, count = frames.shape[:2]
        each = level if level.ndim == 2 else level[:, None].expand(batch, count)
        if coarser is None:
            return self._clips(frames, x, each, cond, guest)
        told, rest = coarser.clip(cond)
        told = told.to(frames.dtype)
        if not coarser.each:
            field = Field((None, *told.shape[2:]), channels=1)
            masks = {COARSE: torch.ones(batch, count, dtype=torch.bool, device=told.device)}
            known = Latent({COARSE: told}, masks, LatentSpec({COARSE: field}))
            return self._clips(frames, x, each, rest.fixed(**{COARSE: known}), guest)
        gaps = told.shape[1] - 1
        rows = torch.arange(batch, device=frames.device).repeat_interleave(gaps)
        ends = [part.flatten(0, 1)[:, None] for part in (told[:, :-1], told[:, 1:])]
        windows = torch.cat((ends[0], _gaps(frames, gaps), ends[1]), 1)
        clean = torch.full((len(rows), 1), CLEAN, dtype=each.dtype, device=each.device)
        levels = torch.cat((clean, _gaps(each, gaps), clean), 1)
        spacing = torch.full((len(rows),), math.log2(gaps), dtype=frames.dtype)
        known_ = rest.select(rows.to(torch.long)).fixed(**{SPACING: spacing.to(frames.device)})
        clip = Latent({self.name: windows}, {}, self.frame)
        found = self._clips(windows, clip, levels, known_, guest)[:, 1:-1]
        return torch.unflatten(found, 0, (batch, gaps)).flatten(1, 2)

    def _clips(
        self, frames: Tensor, x: Latent, each: Tensor, cond: Condition | None, guest: Guest | None
    ) -> Tensor:
        """Clips with a noise level for each frame, (B, T)."""
        batch, count = frames.shape[:2]
        mask = next(iter(x.masks.values()), None)
        own = self.temporal.begin(x, each, cond)
        clips = Latent({self.name: frames}, {} if mask is None else {self.name: mask}, x.spec)
        found: Latent = self.image(
            self.folding.clips(clips, self.name, self.frame),
            each.flatten(),
            self.folding.condition(cond, count, mask),
            own if guest is None else Both(own, guest),
        )
        return torch.unflatten(found[self.name], 0, (batch, count))


class Lent(Backbone):
    """The network of one level of a cascade for another, whose clips have other numbers of frames.
    It has no parameters of its own. Raises ValueError where it can't be that."""

    per_entry = True

    def __init__(self, backbone: Inflated, spec: LatentSpec, conditions: ConditionSpec) -> None:
        super().__init__()
        self._lent = (backbone,)  # in a tuple, so that its weights are counted and kept once
        self.spec, self.conditions, self.sites = spec, conditions, backbone.sites
        self.name, frame = frame_spec(spec)
        self.coarser = _coarser(spec, conditions)
        other = backbone.coarser
        known = conditions if self.coarser is None else self.coarser.spec(conditions)
        same = list(frame.fields.values()) == list(backbone.frame.fields.values())
        if (
            not same
            or known != backbone.folding.conditions
            or (other is not None and self.coarser is not None and other.each != self.coarser.each)
        ):
            raise ValueError(
                f"its frames are {frame}, told {self.coarser}, and those of the other "
                f"{backbone.frame}, told {other}"
            )

    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        (backbone,) = self._lent
        level = self.levels(c_noise, x)
        found = backbone.made(x[self.name], x, level, cond, guest, self.coarser)
        return x.replace(**{self.name: found})


def _coarser(spec: LatentSpec, conditions: ConditionSpec) -> Coarser | None:
    (field,) = spec.fields.values()
    return Coarser.of(field.shape[0], conditions.latents)


def _gaps(x: Tensor, gaps: int) -> Tensor:
    """(B, gaps·m, ...) → (B·gaps, m, ...)."""
    return torch.unflatten(x, 1, (gaps, -1)).flatten(0, 1)
