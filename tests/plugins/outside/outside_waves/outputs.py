"""Signals as they are saved (csv) and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image


class Signals:
    """`tensor` (B, 1, length). It keeps to `al.Outputs`."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, index: slice) -> Signals:
        return Signals(self.tensor[index])

    def to(self, device: torch.device | str) -> Signals:
        return Signals(self.tensor.to(device))

    @classmethod
    def join(cls, pieces: Sequence[Signals]) -> Signals:
        return cls(torch.cat([piece.tensor for piece in pieces]))

    def save(self, directory: Path, names: Sequence[str]) -> list[Path]:
        """One number a line."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{name}.csv" for name in names]
        for signal, path in zip(self.tensor[:, 0].cpu().tolist(), paths, strict=True):
            path.write_text("".join(f"{value:.6f}\n" for value in signal), encoding="utf-8")
        return paths

    def show(self, columns: int | None = None, labels: Sequence[str] = ()) -> Image.Image:
        """Black curves, 4 pixels a sample, in cells of 64 pixels from -1.5 below to 1.5 above."""
        from PIL import Image, ImageDraw

        columns = columns or min(len(self), 4)
        width, height = 4 * self.tensor.shape[-1], 64
        sheet = Image.new("RGB", (columns * width, -(-len(self) // columns) * height), "white")
        draw = ImageDraw.Draw(sheet)
        for index, signal in enumerate(self.tensor[:, 0].clamp(-1.5, 1.5).tolist()):
            top, left = index // columns * height, index % columns * width
            points = [(left + 4 * i, top + height * (0.5 - v / 3)) for i, v in enumerate(signal)]
            draw.line(points, fill="black")
        for row, label in enumerate(labels):
            draw.text((2, row * height + 2), label, fill="black")
        return sheet
