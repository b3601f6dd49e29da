"""What learns where pictures' models become clips' models."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from anylatent.core.runs.sources import Tuning
from anylatent.core.support.files import UserError


class TemporalTuning(Tuning):
    """Layers over time alone: every frame stays what the pictures' model makes of it."""

    def learns(self, names: Sequence[str]) -> Collection[str]:
        found = [name for name in names if ".temporal." in name]
        if not found and any(name.startswith("generator") for name in names):
            raise UserError(
                "tuning=temporal: no parameter of this generator is one of layers over time: "
                "use backbone=video_unet or video_dit"
            )
        return found
