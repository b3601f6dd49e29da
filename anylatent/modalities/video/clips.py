"""Clips as they are saved, shown and judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, overload

import torch
from torch import Tensor

from anylatent.core.support.files import replacing
from anylatent.modalities.shared.movies import write_movie
from anylatent.modalities.video.sheet import sheet

if TYPE_CHECKING:
    from PIL import Image


class Clips(Sequence[Tensor]):
    """Clips with frames of one size, outputs of the video modality.

    `frames` (B, T, C, H, W) about in [-1, 1], T the longest; `lengths` (B,) int64, by default T
    each; `rate` frames a second, with which they are saved. `given` (B, T) bool are the frames that
    were not made but given. `lossless`: as which kind of file they are saved. A single one is a
    tensor (T, C, H, W). Raises ValueError for tensors of other shapes.
    """

    def __init__(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        rate: float = 8.0,
        given: Tensor | None = None,
        lossless: bool = False,
    ) -> None:
        if frames.ndim != 5:
            raise ValueError(f"clips are a tensor (B, T, C, H, W), got {tuple(frames.shape)}")
        count, longest = frames.shape[:2]
        self.lengths = torch.full((count,), longest) if lengths is None else lengths.cpu()
        if self.lengths.shape != (count,) or (
            given is not None and given.shape != (count, longest)
        ):
            raise ValueError(f"lengths (B,) and given (B, T) must fit {tuple(frames.shape)}")
        self.frames, self.rate, self.lossless = frames, rate, lossless
        self.given = torch.zeros(count, longest, dtype=torch.bool) if given is None else given.cpu()

    # ---- a sequence ---------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Clips: ...
    def __getitem__(self, index: int | slice) -> Tensor | Clips:
        if isinstance(index, slice):
            return self.like(self.frames[index], self.lengths[index], self.given[index])
        return self.frames[index, : int(self.lengths[index])]

    def like(self, frames: Tensor, lengths: Tensor, given: Tensor) -> Clips:
        """Other clips that are saved as these."""
        return Clips(frames, lengths, self.rate, given, self.lossless)

    @property
    def mask(self) -> Tensor:
        """Which frames there are, (B, T) bool."""
        return torch.arange(self.frames.shape[1]) < self.lengths[:, None]

    # ---- outputs ------------------------------------------------------------------------------
    def to(self, device: torch.device | str) -> Clips:
        return self.like(self.frames.to(device), self.lengths, self.given)

    def exact(self) -> Self:
        """The same, to be saved in files from which every pixel can be read back."""
        return type(self)(self.frames, self.lengths, self.rate, self.given, lossless=True)

    @classmethod
    def join(cls, pieces: Sequence[Clips]) -> Clips:
        longest = max(piece.frames.shape[1] for piece in pieces)
        frames = torch.cat([_longer(piece.frames, longest) for piece in pieces])
        given = torch.cat([_longer(piece.given, longest) for piece in pieces])
        return pieces[0].like(frames, torch.cat([piece.lengths for piece in pieces]), given)

    def save(self, directory: Path, names: Sequence[str]) -> list[Path]:
        """NAME.mp4 of each, H.264 as every viewer plays it; or lossless ones, NAME.mkv."""
        directory.mkdir(parents=True, exist_ok=True)
        ending = "mkv" if self.lossless else "mp4"
        paths = [directory / f"{name}.{ending}" for name in names]
        for clip, path in zip(self, paths, strict=True):
            with replacing(path) as temporary:
                write_movie(temporary, to_bytes(clip), self.rate, self.lossless)
        return paths

    def beside(self, originals: Clips) -> Image.Image:
        """Each of the originals, and what has become of it below."""
        length = max(originals.frames.shape[1], self.frames.shape[1])
        pairs = zip(
            (originals.frames.to(self.frames), originals.given, originals.lengths),
            (self.frames, self.given, self.lengths),
            strict=True,
        )
        frames, given, lengths = (
            _in_turns(*(_longer(x, length) if x.ndim > 1 else x for x in pair)) for pair in pairs
        )
        return self.like(frames, lengths, given).show()

    def show(self, columns: int | None = None, labels: Sequence[str] = ()) -> Image.Image:
        """A contact sheet with time along x, one clip to a row, or `columns` of them side by side;
        frames that were given are framed."""
        pixels, lengths = to_bytes(self.frames), self.lengths.tolist()
        return sheet(pixels, lengths, self.given, columns or 1, labels)


def _in_turns(one: Tensor, other: Tensor) -> Tensor:
    """(2 B, ...): the first of both, the second of both, ..."""
    return torch.stack((one, other), 1).flatten(0, 1)


def to_bytes(frames: Tensor) -> Tensor:
    """Frames (..., C, H, W) in [-1, 1], clipped, as uint8 (..., H, W, C)."""
    scaled = (frames.detach().float().cpu() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).movedim(-3, -1)


def _longer(x: Tensor, length: int) -> Tensor:
    """(B, T, ...) with zeros up to `length` along the second axis."""
    more = x.new_zeros(x.shape[0], length - x.shape[1], *x.shape[2:])
    return torch.cat((x, more), 1) if more.shape[1] else x
