"""The metrics of clips: distances to real ones, coherence and motion, and how they are restored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from anylatent.core.modality import Data, Metric, Outputs
from anylatent.modalities.shared.distances import frechet
from anylatent.modalities.shared.perceptual import Perceptual
from anylatent.modalities.shared.restoration import psnr, ssim
from anylatent.modalities.video.metrics.references import Judged, clips_of, references_of
from anylatent.modalities.video.metrics.temporal import FRAMES, flicker, restlessness


class ClipMetric(Metric, ABC):
    """Figures of clips; at most `limit` clips of either part are used, and of each the features of
    `middle` frames in a row, in the middle.

    There are rows for held-out and training clips, and for held-out ones made worse: frozen (the
    first frame alone), shuffled (frames in a random order) and blurred. Restored clips have the
    same figures, beside those of the held-out clips that they were made of.
    """

    modality: ClassVar[str] = "video"

    def __init__(self, data: Data, limit: int = 256, middle: int = 8) -> None:
        self.references = references_of(data, limit, middle)

    @abstractmethod
    def row(self, judged: Judged) -> dict[str, float]:
        """The figures of some clips."""

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        return self.row(self.references.judged(outputs))

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        return {name: self.row(judged) for name, judged in self.references.rows.items()}

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> dict[str, float]:
        return self.row(self.references.restored(originals, outputs))

    def unrestored(self, originals: Outputs) -> dict[str, float]:
        return self.row(self.references.unrestored(originals))


class ClipDistances(ClipMetric):
    """Fréchet distances of EfficientNet-Lite0 features to those of real clips: of what frames look
    like, and, apart from it, of how they change.

    `clips`, `frames`, `size`: how many clips either side has (the number of held-out
    ones, or fewer if there were fewer, which makes distances larger), how long the judged ones are
    on average, how wide in pixels: distances are comparable where these are equal. `frame_distance`
    is of the features of four frames of a clip, evenly spread; `motion_distance` of the root mean
    square, over `middle` frames in a row in the middle of a clip, of the differences of consecutive
    frames' features. It sees frames that are frozen, shuffled or foreign, not whether a clip runs
    backwards or at half the speed. At most `limit` held-out clips are used.

    Restored clips are compared with the very clips that they were made of, 0 where they are equal;
    the held-out clips beside them, as everywhere, with as many training clips.
    """

    place: ClassVar[int] = 0

    def row(self, judged: Judged) -> dict[str, float]:
        own, real = judged.own, judged.real
        return {
            "clips": float(len(own)),
            "frames": float(own.length.mean()),
            "size": float(judged.size),
            "frame_distance": frechet(own.appearance.flatten(0, 1), real.appearance.flatten(0, 1)),
            "motion_distance": frechet(own.change, real.change),
        }


class Coherence(ClipMetric):
    """How well each frame of a clip goes on from the one before, and how much moves.

    `warping_error`: the mean absolute difference, of 255, of a frame and the next one pulled back
    by the optical flow; `frame_cosine`: the mean cosine of consecutive frames' EfficientNet-Lite0
    features, of `middle` frames in a row in the middle. Both are best for a clip that stands still,
    and the first for a blurred one, so that they say nothing without the motion beside them:
    `motion_magnitude`, the mean absolute difference of consecutive frames, of 255, and
    `motion_strength`, the mean length of the optical flow in pixels a frame. All but the cosine are
    of frames resized to 64 × 64 pixels. At most `limit` held-out clips are used.
    """

    place: ClassVar[int] = 1

    def row(self, judged: Judged) -> dict[str, float]:
        own = judged.own
        return {
            "warping_error": float(own.warping.mean()),
            "frame_cosine": float(own.cosine.mean()),
            "motion_magnitude": float(own.difference.mean()),
            "motion_strength": float(own.strength.mean()),
        }


class ClipRestoration(Metric):
    """How well clips are restored.

    `psnr` (dB, the mean of the frames' own), `ssim`, `perceptual` (LPIPS by AlexNet, 1801.03924, of
    four frames of a clip, evenly spread); `flicker`: the error of the differences of consecutive
    frames over √2 times that of the frames, 1 where errors are independent from frame to frame, 0
    where they stay; left out where there is no error. `restlessness`: the warping error where
    nothing moves, the mean absolute difference, of 255, of consecutive restored frames at places
    where the original's are alike.
    """

    modality: ClassVar[str] = "video"
    place: ClassVar[int] = 2

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> dict[str, float]:
        before, after = clips_of(originals), clips_of(outputs)
        pairs = list(zip(before, after, strict=True))
        restored = {
            "psnr": torch.cat([psnr(a, b) for a, b in pairs]),
            "ssim": torch.cat([ssim(a, b) for a, b in pairs]),
            "perceptual": torch.cat([_perceptual(a, b) for a, b in pairs]),
        }
        means = {name: float(values.mean()) for name, values in restored.items()}
        sides = list(before), list(after)
        over_time = {"flicker": flicker(*sides), "restlessness": restlessness(*sides)}
        return means | {name: value for name, value in over_time.items() if value is not None}


@torch.no_grad()
def _perceptual(before: Tensor, after: Tensor) -> Tensor:
    """Of some frames of a clip, (N,)."""
    some = torch.linspace(0, len(before) - 1, FRAMES).round().long()
    pair = (x[torch.unique(some).to(x.device)].float() for x in (before, after))
    found: Tensor = Perceptual("alex")(*pair)
    return found
