"""What learns where pictures' models become clips' models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from anylatent.core.runs.sources import Tuning
from anylatent.core.support.files import UserError


class TemporalTuning(Tuning):
    """Layers over time alone: every frame stays what the pictures' model makes of it. In the stage
    `autoencoder` these are layers of its decoder, which it gets where it has none."""

    @classmethod
    def inherited(cls, stage: str, parts: Mapping[str, Any]) -> Mapping[str, Any]:
        autoencoder = parts.get("autoencoder") or {}
        if stage != "autoencoder" or autoencoder.get("name") != "frames":
            return parts
        return {**parts, "autoencoder": {**autoencoder, "temporal": True}}

    def learns(self, names: Sequence[str]) -> Collection[str]:
        found = [name for name in names if ".temporal." in name]
        if found or not names:
            return found
        if any(name.startswith("generator") for name in names):
            raise UserError(
                "tuning=temporal: no parameter of this generator is one of layers over time: "
                "use backbone=video_unet or video_dit"
            )
        if any(name.startswith("autoencoder") for name in names):
            raise UserError(
                "tuning=temporal: the decoder has no layers over time: use autoencoder=frames "
                "autoencoder.temporal=true"
            )
        return found
