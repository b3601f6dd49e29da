"""Frames that a sample must have: the first, some of a clip, both ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Latent
from anylatent.core.modality import Batch, Given, Outputs, asked_of
from anylatent.core.support.files import UserError
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.reading import clip_of, picture_of


class GivenFrames(Given):
    """`cond.clip`, a file of frames that samples have too, in the same places: those in `cond.keep`
    ([0,1,2,3,4]; all of them where it is not given). `cond.first`, a picture, is the first frame;
    `cond.first.run` is the run of pictures that makes one.

    In Python a clip may be a tensor (T, C, H, W), a picture one (C, H, W), in [-1, 1].
    """

    asks = ("clip", "keep", "first")
    lists = ("keep",)
    made_by = MappingProxyType({"first": "image"})

    def __init__(self, shape: Sequence[int], rate: float | None) -> None:
        self.shape, self.rate = tuple(shape), rate

    def known(self, blank: Latent, cond: Mapping[str, Any]) -> Batch | None:
        """`video` (B, T, C, H, W) with the known frames, `mask`, and `given` (B, T)."""
        clips, keeps, firsts = (asked_of(cond, name, blank.batch) for name in self.asks)
        if all(value is None for value in (*clips, *firsts)):
            if any(keep is not None for keep in keeps):
                raise UserError("cond.keep names frames of cond.clip=FILE, which is not given")
            return None
        name = next(iter(blank.parts))
        if name not in blank.masks or len(blank.parts) > 1:
            raise UserError("frames can be given to clips that have a latent for each frame")
        mask, lengths = blank.masks[name].cpu(), blank.lengths(name).tolist()
        video = torch.zeros(*mask.shape, *self.shape)
        given = torch.zeros_like(mask)
        for row, length in enumerate(lengths):
            places = self._places(clips[row], keeps[row], length)
            if places:
                video[row, places] = self._clip(clips[row], places)
                given[row, places] = True
            if firsts[row] is not None:
                if 0 in places:
                    raise UserError("cond.first and frame 0 of cond.clip both say the first frame")
                video[row, 0], given[row, 0] = picture_of(firsts[row], self.shape), True
            _check_free(int(given[row].sum()), length)
        frames = torch.tensor(lengths)
        return {"video": video, "mask": mask, "given": given, "frames": frames}

    def complete(self, outputs: Outputs, known: Batch) -> Clips:
        """The given frames as they are, in the place of those that were decoded."""
        return self.put(outputs, known, known["given"])

    def put(self, outputs: Outputs, data: Batch, given: Tensor) -> Clips:
        assert isinstance(outputs, Clips)
        frames, there = outputs.frames, given.to(outputs.frames.device)
        own = data["video"].to(frames)
        kept = torch.where(there[..., None, None, None], own, frames)
        return outputs.like(kept, outputs.lengths, outputs.given | given.cpu())

    def _places(self, clip: Any, keep: Any, length: int) -> list[int]:
        """The given frames of a sample of this length."""
        if clip is None:
            return []
        count = len(self._whole(clip))
        if keep is None:
            _check_free(count, length)
            return list(range(count))
        entries = keep if isinstance(keep, list | tuple) else [keep]
        most = min(count, length)
        for entry in entries:
            if not isinstance(entry, int) or isinstance(entry, bool) or not 0 <= entry < most:
                raise UserError(
                    f"cond.keep={keep}: frames are counted from 0 to {most - 1}, for the clip has "
                    f"{count} and the sample {length}"
                )
        return sorted(set(entries))

    def _clip(self, clip: Any, places: Sequence[int]) -> Tensor:
        return self._whole(clip)[list(places)]

    def _whole(self, clip: Any) -> Tensor:
        return clip_of(clip, self.shape, self.rate)


def _check_free(count: int, length: int) -> None:
    """Raises UserError where nothing is left to be found."""
    if count >= length:
        raise UserError(
            f"{count} frames are given, and samples have {length}: ask for more by "
            "cond.frames=..., or give fewer by cond.keep=[0,1]"
        )
