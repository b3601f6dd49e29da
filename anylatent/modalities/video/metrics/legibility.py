"""Whether digits can be read in the frames that go on from given ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from anylatent.core.modality import Data, Metric, Modality, Outputs
from anylatent.modalities.image.data import Mnist
from anylatent.modalities.image.metrics import references_of as digits_of
from anylatent.modalities.shared.image_features import features
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.metrics.guesses import Task
from anylatent.modalities.video.metrics.references import clips_of

_SIDE = 28
_APART = 24  # around the ink of a digit there are four empty pixels
_CLASSES = 10


class Legibility(Metric):
    """How often a classifier of real digits names the true digit, seen where it should be, 28 × 28
    pixels, in frames 1 and 2 after the last given one; digits less than 24 pixels from another, in
    both directions, are left out.

    `legibility_1`, `legibility_2`, `legibility` of both, `digits_read`: how many digits these are
    about, at most `limit`. Rows: "samples" (of all completions), "held-out" (the true clips) and
    "chance". For data of moving digits, which have the columns `places` and `digits`. The
    classifier learns from at most `digits` of the digits in their training clips, once.
    """

    modality: ClassVar[str] = "video"
    place: ClassVar[int] = 4

    def __init__(self, data: Data, *, limit: int = 512, digits: int = 1000) -> None:
        self.real, self.limit, self.digits = getattr(data, "digits", None), limit, digits

    @classmethod
    def applies(cls, modality: Modality, data: Data) -> bool:
        return super().applies(modality, data) and isinstance(getattr(data, "digits", None), Mnist)

    def completions(
        self,
        originals: Outputs,
        outputs: Sequence[Outputs],
        given: Tensor,
        columns: Mapping[str, Any],
    ) -> dict[str, dict[str, float]]:
        if self.real is None or "places" not in columns or "digits" not in columns:
            return {}
        task = Task(clips_of(originals), given)
        spots = readable(task, columns["places"], columns["digits"])
        spots = spots[: max(1, self.limit // max(1, len(outputs)))]
        if not spots or not outputs:
            return {}
        rows = {"samples": [clips_of(each) for each in outputs], "held-out": [clips_of(originals)]}
        found = {name: self._row(every, spots) for name, every in rows.items()}
        same = dict.fromkeys((n for n in found["held-out"] if n != "digits_read"), 1 / _CLASSES)
        return {**found, "chance": same}

    def _row(self, every: Sequence[Clips], spots: Sequence[Spot]) -> dict[str, float]:
        """The share that is read rightly, of each horizon and of both."""
        seen = [(clips, spot) for spot in spots for clips in every]
        crops = torch.stack([spot.crop(clips) for clips, spot in seen])
        right = self._read(crops) == torch.tensor([spot.digit for _, spot in seen])
        ahead = torch.tensor([spot.ahead for _, spot in seen])
        each = {f"legibility_{h}": right[ahead == h] for h in (1, 2)}
        shares = {name: x.double().mean().item() for name, x in each.items() if len(x)}
        overall = float(right.double().mean())
        return {"digits_read": float(len(seen)), "legibility": overall, **shares}

    def _read(self, crops: Tensor) -> Tensor:
        """The digits in pictures (N, 1, 28, 28), (N,)."""
        assert self.real is not None
        judge = digits_of(self.real, self.digits).classifiers["digit"]
        named: Tensor = judge(crops, features(crops)).argmax(1)
        return named


@dataclass(frozen=True)
class Spot:
    """Where a digit is seen: in which clip and frame, its top and left, and which digit it is."""

    clip: int
    frame: int
    top: int
    left: int
    digit: int
    ahead: int

    def crop(self, clips: Clips) -> Tensor:
        """(1, 28, 28) in [-1, 1]."""
        frame = clips.frames[self.clip, self.frame].detach().float().cpu().mean(0, keepdim=True)
        return frame[:, self.top : self.top + _SIDE, self.left : self.left + _SIDE]


def readable(task: Task, places: Sequence[Any], digits: Sequence[Any]) -> list[Spot]:
    """Digits that no other covers, in the first two frames after given ones. `places` has for each
    clip the top and left of its digits, (T, D, 2), `digits` which these are, (D,)."""
    found = list[Spot]()
    for clip, (own, names) in enumerate(zip(places, digits, strict=True)):
        where, labels = torch.as_tensor(own), torch.as_tensor(names).tolist()
        ahead = task.ahead[clip]
        for frame in ((ahead > 0) & (ahead <= 2)).nonzero()[:, 0].tolist():
            apart = (where[frame, :, None] - where[frame, None]).abs().amax(-1) >= _APART
            alone = (apart | torch.eye(len(labels), dtype=torch.bool)).all(1)
            for k in alone.nonzero()[:, 0].tolist():
                top, left = where[frame, k].tolist()
                found.append(Spot(clip, frame, top, left, labels[k], int(ahead[frame])))
    return found
