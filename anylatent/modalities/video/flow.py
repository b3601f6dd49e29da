"""Optical flow by dense inverse search (1603.03590), and the strength of motion.

The preset "fast" of OpenCV, with one thread. Pictures that were moved by whole pixels are found to
.001, by fractions to .05 pixels; a pair of 64 × 64 pixels costs about a millisecond.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from anylatent.core.support.packages import MissingPackage

SIDE = 64
"""The width and height at which motion is told, in pixels."""

_PIECE = 128  # frames that are compared at a time, in whose memory long films have room
_GREY = (0.299, 0.587, 0.114)


def flow(a: Tensor, b: Tensor) -> Tensor:
    """How far each pixel of `a` has moved in `b`, to the right and down, (2, H, W) float32, in
    pixels. Both are uint8 (C, H, W).

    Raises ValueError for others, `MissingPackage` without OpenCV.
    """
    return flows(torch.stack((a, b)))[0]


def flows(frames: Tensor) -> Tensor:
    """The flow from each of the frames, uint8 (T, C, H, W), to the next: (T - 1, 2, H, W)."""
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] not in (1, 3):
        got = f"{frames.dtype} {tuple(frames.shape)}"
        raise ValueError(f"flow is of frames uint8 (T, 1 or 3, H, W), got {got}")
    search, grey = _search(), _grey(frames).numpy()
    found = torch.empty(max(len(frames) - 1, 0), 2, *frames.shape[2:])
    for pair, (a, b) in zip(found, zip(grey, grey[1:], strict=False), strict=True):
        pair.copy_(torch.from_numpy(search.calc(a, b, None)).movedim(-1, 0))
    return found


def warp(frames: Tensor, moved: Tensor) -> Tensor:
    """Frames (N, C, H, W) pulled back by flows (N, 2, H, W): each pixel has the value where the
    flow leads, bilinear, exact for whole pixels; what lies outside is that of the edge."""
    size, (height, width) = frames.shape, frames.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    right, down = (x + moved[:, 0]).clamp(0, width - 1), (y + moved[:, 1]).clamp(0, height - 1)
    left, top = right.long().clamp(max=width - 2), down.long().clamp(max=height - 2)
    flat = frames.float().flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        places = (row * width + column).flatten(1)[:, None].expand(flat.shape)
        return flat.gather(2, places).view(size)

    across = (right - left)[:, None]
    above, below = (torch.lerp(at(r, left), at(r, left + 1), across) for r in (top, top + 1))
    return torch.lerp(above, below, (down - top)[:, None])


def small(frames: Tensor) -> Tensor:
    """Frames uint8 (T, C, H, W) of 64 × 64 pixels, resized where they are not."""
    if frames.shape[2:] == (SIDE, SIDE):
        return frames
    resized = functional.interpolate(
        frames.float(), size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
    )
    return resized.round().clamp(0, 255).to(torch.uint8)


def motion(frames: Tensor) -> Tensor:
    """The mean length of the flow from each frame to the next, in pixels a frame at 64 px, (T,)
    float32; the last repeats the one before, a single frame has 0.

    `frames` uint8 (T, C, H, W). Raises `MissingPackage` without OpenCV.
    """
    if len(frames) < 2:
        return torch.zeros(len(frames))
    starts = range(0, len(frames) - 1, _PIECE)
    pieces = (flows(small(frames[start : start + _PIECE + 1])) for start in starts)
    lengths = torch.cat([moved.norm(dim=1).mean((1, 2)) for moved in pieces])
    return torch.cat((lengths, lengths[-1:]))


def _grey(frames: Tensor) -> Tensor:
    """Luma, (T, H, W) uint8."""
    if frames.shape[1] == 1:
        return frames[:, 0].contiguous()
    weights = torch.tensor(_GREY)[:, None, None]
    return (frames * weights).sum(1).round().to(torch.uint8)


def _search() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingPackage("opencv-python-headless", "optical flow") from error
    cv2.setNumThreads(1)  # more only get in one another's way, and change the last digits
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
