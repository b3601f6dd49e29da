"""A network of pictures that has become one of clips."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.guests import Both, Guest
from anylatent.core.nn.unet import UNet
from anylatent.core.registry import Maker
from anylatent.modalities.video.folding import Folding, frame_conditions, frame_spec
from anylatent.modalities.video.temporal import Temporal


class Inflated(Backbone):
    """The frames of clips through any network of pictures, `image`, with layers over time after its
    layers over space. Align Your Latents (2304.08818), VDM (2204.03458).

    The frames are a batch of pictures to it, each with its own noise level and conditions; where
    conditions have an entry for each frame (vectors (None, D), latents (None, C, H, W), maps (B, T,
    C, H, W)), each has its own. Layers over time are convolutions over `kernel` frames, and
    attention of `heads` heads where the network attends; `gate` is how much of them enters at the
    start: with 0 the clips' model is the pictures' model on each frame. Without `layers` there
    are none, and only a guest lets frames know of one another. Any length works.
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
        self.folding, inner = Folding(self.conditions), frame_conditions(self.conditions)
        told: dict[str, Any] = {"spec": self.frame, "conditions": inner}
        self.image = UNet(**told) if image is None else image(**told)
        self.temporal = Temporal(self.image.sites, heads, kernel, gate) if layers else Guest()
        self.sites = self.image.sites

    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        batch, frames = x[self.name].shape[:2]
        level = self.levels(c_noise, x)
        each = level if level.ndim == 2 else level[:, None].expand(batch, frames)
        own = self.temporal.begin(x, c_noise, cond)
        found: Latent = self.image(
            self.folding.clips(x, self.name, self.frame),
            each.flatten(),
            self.folding.condition(cond, frames, x.masks.get(self.name)),
            own if guest is None else Both(own, guest),
        )
        return x.replace(**{self.name: torch.unflatten(found[self.name], 0, (batch, frames))})
