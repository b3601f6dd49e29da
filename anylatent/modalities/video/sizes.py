"""The lengths of clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Latent, LatentSpec, Noise
from anylatent.core.modality import Sizes, asked_of
from anylatent.core.support.files import UserError


class Lengths(Sizes):
    """`frames` each, those of the windows that were learned from, or as many as are asked for, up
    to `most`."""

    asks = ("frames",)

    def __init__(self, frames: int, most: int) -> None:
        if frames < 1 or most < frames:
            raise UserError(
                f"modality.frames={frames}: a clip has 1 to modality.most={most} frames"
            )
        self.frames, self.most = frames, most

    def blank(self, spec: LatentSpec, noise: Noise, cond: Mapping[str, Any]) -> Latent:
        """Of the numbers of frames in `cond["frames"]`. Raises UserError for one that is no whole
        number from 1 to `most`."""
        return self.largest(spec, noise.batch, cond)

    def largest(self, spec: LatentSpec, samples: int, cond: Mapping[str, Any]) -> Latent:
        asked = asked_of(cond, "frames", samples)
        lengths = [self._length(value) for value in asked]
        if not any(field.variable for field in spec.fields.values()):
            if any(value is not None for value in asked):
                raise UserError(
                    f"cond.frames={cond['frames']}: clips of this run have as many frames as "
                    f"it was trained with ({spec}); leave it out"
                )
            return spec.blank(samples)
        return spec.blank(samples, torch.tensor(lengths))

    def nats(self, x0: Latent) -> Tensor:
        """0: how long a clip is says nothing of it, as windows are cut by the user."""
        return torch.zeros(x0.batch)

    def _length(self, value: Any) -> int:
        if value is None:
            return self.frames
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 1 <= value <= self.most or value != int(value):
            raise UserError(
                f"cond.frames={value}: a whole number from 1 to {self.most} is wanted, or nothing "
                f"for {self.frames}; modality.most is the bound"
            )
        return int(value)
