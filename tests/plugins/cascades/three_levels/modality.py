"""How rows become latents, are saved, and are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import anylatent as al
from three_levels.data import MEAN, SIZES, SLOPES, LevelData

if TYPE_CHECKING:
    from PIL import Image


class Numbers:
    """`tensor` (B, 14). It keeps to `al.Outputs`."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, index: slice) -> Numbers:
        return Numbers(self.tensor[index])

    def to(self, device: torch.device | str) -> Numbers:
        return Numbers(self.tensor.to(device))

    @classmethod
    def join(cls, pieces: Sequence[Numbers]) -> Numbers:
        return cls(torch.cat([piece.tensor for piece in pieces]))

    def save(self, directory: Path, names: Sequence[str]) -> list[Path]:
        """A line of numbers."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{name}.txt" for name in names]
        for row, path in zip(self.tensor.tolist(), paths, strict=True):
            path.write_text(" ".join(f"{value:.6f}" for value in row), encoding="utf-8")
        return paths

    def show(self, columns: int | None = None, labels: Sequence[str] = ()) -> Image.Image:
        """A grey square for each number, a line for each sample."""
        from PIL import Image

        grey = ((self.tensor.cpu() + 2) * 64).clamp(0, 255).byte()
        return Image.fromarray(grey.numpy()).resize((14 * 8, len(self) * 8), 0)


class Levels(al.Autoencoder):
    """Nothing is learned: the three levels of a row are the fields of its latent."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = al.LatentSpec({name: al.Field(shape) for name, shape in SIZES.items()})

    def encode(self, batch: Mapping[str, Any]) -> al.Posterior:
        parts = batch["levels"].split((2, 4, 8), 1)
        shaped = zip(SIZES.items(), parts, strict=True)
        return al.Posterior(self.spec.wrap({n: x.reshape(-1, *s) for (n, s), x in shaped}))

    def decode(self, z: al.Latent) -> Numbers:
        return Numbers(torch.cat([x.flatten(1) for x in z.parts.values()], 1))

    def loss(
        self, batch: Mapping[str, Any], noise: al.Noise, step: int
    ) -> tuple[dict[str, Tensor], None]:
        return {"none": batch["levels"].new_zeros(len(batch["levels"]))}, None


class LevelModality(al.Modality):
    """Rows of one length; outputs are `Numbers`."""

    def originals(self, batch: Mapping[str, Any]) -> Numbers:
        return Numbers(batch["levels"])


class LevelFigures(al.Metric):
    """What the law says of itself, found in samples."""

    modality = "levels"

    def __init__(self, data: LevelData) -> None:
        self.data = data

    def samples(self, outputs: al.Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        """The mean of top along the sign that was asked for (0.5); the slopes of middle (0.9) and
        bottom (-0.7), and what is left of them (0.3 and 0.4)."""
        assert isinstance(outputs, Numbers)
        top, middle, bottom = outputs.tensor.double().cpu().split((2, 4, 8), 1)
        figures = {}
        if "sign" in columns:
            named = {"minus": 0, "plus": 1}
            index = [named.get(sign, sign) for sign in columns["sign"]]
            figures["mean"] = float((top.mean(1) * (2 * torch.tensor(index) - 1)).mean())
        for name, fine, coarse in (("middle", middle, top), ("bottom", bottom, middle)):
            over = coarse.repeat_interleave(2, 1)
            slope = (fine * over).sum() / over.square().sum()
            figures[f"slope_{name}"] = float(slope)
            figures[f"rest_{name}"] = float((fine - slope * over).std())
        return figures

    def reconstructions(self, originals: al.Outputs, outputs: al.Outputs) -> dict[str, float]:
        assert isinstance(originals, Numbers) and isinstance(outputs, Numbers)
        return {"error": float((originals.tensor - outputs.tensor).square().mean().sqrt())}

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        rows: Any = self.data.held_out()
        return {"held out": self.samples(Numbers(rows.rows), {"sign": rows.sign.tolist()})}


EXACT = {"mean": MEAN, "slope_middle": SLOPES[0], "slope_bottom": SLOPES[1]}
