"""What is measured of a clip: its frames, how they change, and how it moves; and worse clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from anylatent.modalities.shared.image_features import DIMENSION, features
from anylatent.modalities.shared.restoration import blur
from anylatent.modalities.video.clips import to_bytes
from anylatent.modalities.video.flow import flows, small, warp

FRAMES = 4
"""Of so many frames of a clip, evenly spread, the features are those of pictures."""


@dataclass(frozen=True)
class Measured:
    """What is measured of N clips.

    `appearance` (N, 4, 1280): features of four frames, evenly spread, of which short clips have
    some twice. `change` (N, 1280): the root mean square of the differences of consecutive frames'
    features, `cosine` (N,) the mean cosine between them, over some frames in the middle.
    Of all frames, at 64 × 64 pixels, (N,): `warping`, the mean absolute difference of 255 from a
    frame to the next one pulled back by the optical flow; `difference`, without flow; `strength`,
    the mean length of the flow in pixels a frame; and `length`, how many they are.
    """

    appearance: Tensor
    change: Tensor
    cosine: Tensor
    warping: Tensor
    difference: Tensor
    strength: Tensor
    length: Tensor

    def __len__(self) -> int:
        return len(self.length)

    def select(self, rows: Tensor) -> Measured:
        """Some of the clips."""
        return Measured(**{name: x[rows] for name, x in self.tensors.items()})

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def join(cls, pieces: Sequence[Measured]) -> Measured:
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(p, name) for p in pieces]) for name in names})


def measure(clip: Tensor, most: int, orders: Sequence[Tensor] | None = None) -> list[Measured]:
    """What there is to know of a clip (T, C, H, W) in [-1, 1], `most` frames in the middle of which
    are compared by their features; and of the same frames in each of the `orders` (T,).

    A single frame is a clip in which nothing moves.
    """
    orders = [torch.arange(len(clip))] if orders is None else orders
    spread = torch.linspace(0, len(clip) - 1, FRAMES).round().long()
    first = max(0, (len(clip) - most) // 2)
    middle = slice(first, first + most)
    seen = torch.unique(torch.cat([o[places] for o in orders for places in (spread, middle)]))
    known = torch.zeros(len(clip), DIMENSION)
    known[seen] = features(clip[seen.to(clip.device)])
    pixels = small(to_bytes(clip).movedim(-1, -3))
    return [_measured(known[o[spread]], known[o[middle]], pixels[o]) for o in orders]


def _measured(appearance: Tensor, some: Tensor, pixels: Tensor) -> Measured:
    still = torch.zeros(1)
    means = {"warping": still, "difference": still, "strength": still}
    if len(pixels) > 1:
        before, after, flow = pixels[:-1].float(), pixels[1:].float(), flows(pixels)
        means = {
            "warping": (before - warp(after, flow)).abs().mean()[None],
            "difference": (before - after).abs().mean()[None],
            "strength": flow.norm(dim=1).mean()[None],
        }
    pairs = (some[:-1], some[1:]) if len(some) > 1 else (some, some)
    return Measured(
        appearance=appearance[None],
        change=(pairs[1] - pairs[0]).square().mean(0).sqrt()[None],
        cosine=functional.cosine_similarity(*pairs).mean()[None],
        length=torch.tensor([float(len(pixels))]),
        **means,
    )


# ---- worse clips ------------------------------------------------------------------------------
WORSE = ("frozen", "shuffled", "blurred")


def and_worse(clip: Tensor, most: int, seed: int) -> dict[str, Measured]:
    """What there is to know of a held-out clip, and of it made worse: its first frame alone, its
    frames in a random order, and all of them blurred by 1/32 of their width."""
    length, generator = len(clip), torch.Generator().manual_seed(seed)
    still = torch.zeros(length, dtype=torch.long)
    orders = [torch.arange(length), still, torch.randperm(length, generator=generator)]
    found = measure(clip, most, orders) + measure(blur(clip, clip.shape[-1] / 32), most)
    return dict(zip(("held_out", *WORSE), found, strict=True))


# ---- restored clips ---------------------------------------------------------------------------
def flicker(originals: Sequence[Tensor], outputs: Sequence[Tensor]) -> float | None:
    """The root mean square of what is wrong in the differences of consecutive frames, over √2 times
    that of what is wrong in the frames: 1 where errors are independent from frame to frame, 0 where
    they stay, √2 where they change their sign each time. None where nothing is wrong.
    """
    changes, errors = 0.0, 0.0
    for before, after in zip(originals, outputs, strict=True):
        error = after.detach().double().clamp(-1, 1) - before.detach().double().clamp(-1, 1)
        changes += float(error.diff(dim=0).square().sum())
        errors += float(error[1:].square().sum() + error[:-1].square().sum())
    return (changes / errors) ** 0.5 if errors > 0 else None


STILL = 2.5 / 255


def restlessness(originals: Sequence[Tensor], outputs: Sequence[Tensor]) -> float | None:
    """How much restored frames change where nothing does: the mean absolute difference, of 255, of
    consecutive ones at the places where the original's differ by two of 255 at the most. None where
    there is no such place.
    """
    total, count = 0.0, 0
    for before, after in zip(originals, outputs, strict=True):
        steps = (after.detach().double().clamp(-1, 1) / 2).diff(dim=0).abs()
        still = (before.detach().double() / 2).diff(dim=0).abs() < STILL
        total, count = total + float(steps[still].sum()), count + int(still.sum())
    return 255 * total / count if count else None
