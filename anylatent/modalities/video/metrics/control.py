"""Whether clips move as strongly as was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from anylatent.core.modality import Metric, Outputs
from anylatent.modalities.video.clips import to_bytes
from anylatent.modalities.video.flow import motion
from anylatent.modalities.video.metrics.references import clips_of

THIRDS = ("weak", "middle", "strong")


class MotionAsked(Metric):
    """The strength of motion that was asked for by `cond.motion`, beside what was made, both the
    mean length of the optical flow in pixels a frame at 64 px.

    `motion_correlation` over all samples; and of the thirds of them for which least and most was
    asked, `asked_weak` and `made_weak`, `asked_middle` ..., the means.
    """

    modality: ClassVar[str] = "video"
    place: ClassVar[int] = 5

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        clips = clips_of(outputs)
        pairs = [
            (_asked(value), float(motion(to_bytes(clip).movedim(-1, -3)).mean()))
            for clip, value in zip(clips, columns.get("motion", ()), strict=False)
            if value is not None and len(clip) > 1
        ]
        if len(pairs) < len(THIRDS):
            return {}
        asked, made = torch.tensor(pairs, dtype=torch.float64).unbind(1)
        row = {}
        if float(asked.std()) > 0 and float(made.std()) > 0:
            row["motion_correlation"] = float(torch.corrcoef(torch.stack((asked, made)))[0, 1])
        order = asked.argsort(stable=True)
        for name, some in zip(THIRDS, order.tensor_split(len(THIRDS)), strict=True):
            row[f"asked_{name}"] = float(asked[some].mean())
            row[f"made_{name}"] = float(made[some].mean())
        return row


def _asked(value: Any) -> float:
    return float(value.float().mean()) if isinstance(value, Tensor) else float(value)
