"""Pictures as they are saved, shown and judged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

from anylatent.core.support.files import replacing
from anylatent.modalities.shared.sheets import labelled

if TYPE_CHECKING:
    from PIL import Image


class Pictures(Sequence[Tensor]):
    """Pictures of one size, `tensor` (B, C, H, W) about in [-1, 1], outputs of the image modality.

    A single one is a tensor (C, H, W). Raises ValueError for a tensor of another shape.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.ndim != 4:
            raise ValueError(f"pictures are a tensor (B, C, H, W), got {tuple(tensor.shape)}")
        self.tensor = tensor

    # ---- a sequence ---------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensor)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> Tensor | Pictures:
        found = self.tensor[index]
        return Pictures(found) if isinstance(index, slice) else found

    # ---- outputs ------------------------------------------------------------------------------
    def to(self, device: torch.device | str) -> Pictures:
        return Pictures(self.tensor.to(device))

    @classmethod
    def join(cls, pieces: Sequence[Pictures]) -> Pictures:
        return cls(torch.cat([piece.tensor for piece in pieces]))

    def save(self, directory: Path, names: Sequence[str]) -> list[Path]:
        """NAME.png of each."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{name}.png" for name in names]
        for pixels, path in zip(to_bytes(self.tensor), paths, strict=True):
            with replacing(path) as temporary:
                _picture(pixels).save(temporary, format="PNG")
        return paths

    def show(self, columns: int | None = None, labels: Sequence[str] = ()) -> Image.Image:
        """A contact sheet, `columns` wide (about square if not given), with 2 px between."""
        pixels = to_bytes(self.tensor)
        columns = columns or math.ceil(math.sqrt(len(pixels)))
        rows, (height, width) = math.ceil(len(pixels) / columns), pixels.shape[1:3]
        size = (rows * (height + 2) + 2, columns * (width + 2) + 2, pixels.shape[3])
        sheet = torch.full(size, 255, dtype=torch.uint8)
        for index, picture in enumerate(pixels):
            top, left = divmod(index, columns)
            top, left = 2 + top * (height + 2), 2 + left * (width + 2)
            sheet[top : top + height, left : left + width] = picture
        picture = _picture(sheet).convert("RGB")
        return labelled(picture, labels, height + 2, 2) if labels else picture


def to_bytes(outputs: Tensor) -> Tensor:
    """Pictures (B, C, H, W) in [-1, 1], clipped, as uint8 (B, H, W, C)."""
    scaled = (outputs.detach().float().cpu() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _picture(pixels: Tensor) -> Image.Image:
    from PIL import Image

    array = pixels.contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
