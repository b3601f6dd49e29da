"""Pictures: tensors (B, C, H, W) in [-1, 1], saved as png."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anylatent.core.latents import Field, Latent, LatentSpec, Noise
from anylatent.core.modality import Batch, Data, Metrics, Modality
from anylatent.core.support.files import replacing
from anylatent.modalities.image.likelihood import log_prob

if TYPE_CHECKING:
    from PIL import Image


class ImageModality(Modality):
    """Pictures of one size. `flip` mirrors half of them while the autoencoder learns."""

    def __init__(self, shape: Sequence[int] = (), *, flip: bool = False) -> None:
        """`shape` (C, H, W) is that of the data."""
        self.shape, self.flip = tuple(shape), flip

    def augment(self, batch: Batch, noise: Noise) -> Batch:
        if not self.flip:
            return batch
        image: Tensor = batch["image"]
        mirrored = (noise.uniform() < 0.5).to(image.device)[:, None, None, None]
        return {**batch, "image": torch.where(mirrored, image.flip(-1), image)}

    def raw_spec(self) -> LatentSpec:
        if len(self.shape) != 3:
            raise ValueError(f"pictures have a shape (C, H, W), got {self.shape}: see Data.facts")
        return LatentSpec({"z": Field(self.shape)})

    def lift(self, batch: Batch) -> Latent:
        return self.raw_spec().wrap({"z": self.originals(batch)})

    def lower(self, z: Latent) -> Tensor:
        return z["z"]

    def unit(self, batch: Batch) -> tuple[str, Tensor]:
        image = self.originals(batch)
        return "dimension", torch.full((len(image),), image[0].numel())

    def log_prob(self, batch: Batch, z: Latent) -> Tensor:
        return log_prob(self.originals(batch), self.lower(z))

    def originals(self, batch: Batch) -> Tensor:
        image: Tensor = batch["image"]
        return image

    def save(self, outputs: Tensor, directory: Path, names: Sequence[str]) -> list[Path]:
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{name}.png" for name in names]
        for pixels, path in zip(to_bytes(outputs), paths, strict=True):
            with replacing(path) as temporary:
                _picture(pixels).save(temporary, format="PNG")
        return paths

    def show(
        self, outputs: Tensor, columns: int | None = None, labels: Sequence[str] = ()
    ) -> Image.Image:
        """A contact sheet, `columns` wide (about square if not given), with 2 px between."""
        pixels = to_bytes(outputs)
        columns = columns or math.ceil(math.sqrt(len(pixels)))
        rows, (height, width) = math.ceil(len(pixels) / columns), pixels.shape[1:3]
        size = (rows * (height + 2) + 2, columns * (width + 2) + 2, pixels.shape[3])
        sheet = torch.full(size, 255, dtype=torch.uint8)
        for index, picture in enumerate(pixels):
            top, left = divmod(index, columns)
            top, left = 2 + top * (height + 2), 2 + left * (width + 2)
            sheet[top : top + height, left : left + width] = picture
        picture = _picture(sheet).convert("RGB")
        return _labelled(picture, labels, height + 2) if labels else picture

    def metrics(self, data: Data) -> Metrics:
        from anylatent.modalities.image.metrics import ImageMetrics

        return ImageMetrics(data)


def to_bytes(outputs: Tensor) -> Tensor:
    """Pictures (B, C, H, W) in [-1, 1], clipped, as uint8 (B, H, W, C)."""
    scaled = (outputs.detach().float().cpu() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _picture(pixels: Tensor) -> Image.Image:
    from PIL import Image

    array = pixels.contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _labelled(sheet: Image.Image, labels: Sequence[str], step: int) -> Image.Image:
    """The sheet with a label left of each row of `step` pixels."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=min(14, max(8, step // 2)))
    margin = 8 + max(int(font.getlength(label)) for label in labels)
    wide = Image.new("RGB", (sheet.width + margin, sheet.height), "white")
    wide.paste(sheet, (margin, 0))
    draw = ImageDraw.Draw(wide)
    for row, label in enumerate(labels):
        draw.text((4, 2 + (row + 0.5) * step), label, fill="black", font=font, anchor="lm")
    return wide
