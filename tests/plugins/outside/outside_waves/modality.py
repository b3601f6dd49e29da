"""Signals: how they are batched, saved (csv), shown and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import anylatent as al
from outside_waves.data import HIGHEST, LOWEST, Waves, spectrum

if TYPE_CHECKING:
    from PIL import Image

Columns = Mapping[str, Any]


class WaveModality(al.Modality):
    """Signals (B, 1, length); training shifts them around by whole samples."""

    def augment(self, batch: Columns, noise: al.Noise) -> dict[str, Any]:
        signal: Tensor = batch["signal"]
        length = signal.shape[-1]
        shift = (noise.uniform() * length).long().to(signal.device)
        index = (torch.arange(length, device=signal.device) + shift[:, None]) % length
        return {**batch, "signal": signal.gather(-1, index[:, None])}

    def originals(self, batch: Columns) -> Tensor:
        signal: Tensor = batch["signal"]
        return signal

    def save(self, outputs: Tensor, directory: Path, names: Sequence[str]) -> list[Path]:
        """One number a line."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{name}.csv" for name in names]
        for signal, path in zip(outputs[:, 0].cpu().tolist(), paths, strict=True):
            path.write_text("".join(f"{value:.6f}\n" for value in signal), encoding="utf-8")
        return paths

    def show(
        self, outputs: Tensor, columns: int | None = None, labels: Sequence[str] = ()
    ) -> Image.Image:
        """Black curves, 4 pixels a sample, in cells of 64 pixels from -1.5 below to 1.5 above."""
        from PIL import Image, ImageDraw

        columns = columns or min(len(outputs), 4)
        width, height = 4 * outputs.shape[-1], 64
        sheet = Image.new("RGB", (columns * width, -(-len(outputs) // columns) * height), "white")
        draw = ImageDraw.Draw(sheet)
        for index, signal in enumerate(outputs[:, 0].clamp(-1.5, 1.5).tolist()):
            top, left = index // columns * height, index % columns * width
            points = [(left + 4 * i, top + height * (0.5 - v / 3)) for i, v in enumerate(signal)]
            draw.line(points, fill="black")
        for row, label in enumerate(labels):
            draw.text((2, row * height + 2), label, fill="black")
        return sheet

    def metrics(self, data: al.Data) -> WaveMetrics:
        assert isinstance(data, Waves)
        return WaveMetrics(data)


class WaveMetrics(al.Metrics):
    """Figures against the closed form: a signal has one frequency, of amplitude in [0.5, 1]."""

    def __init__(self, data: Waves) -> None:
        self.data = data

    def samples(self, outputs: Tensor, columns: Columns) -> dict[str, float]:
        """Purity: the share of the power in the strongest frequency. 1 for a cosine.

        `amplitude`: its distance from [0.5, 1], on average. `pitch`: how often it is the one asked.
        """
        amplitudes = spectrum(outputs)
        peak, place = amplitudes.max(1)
        purity = peak.square() / amplitudes.square().sum(1).clamp(min=1e-12)
        off = (LOWEST - peak).clamp(min=0) + (peak - HIGHEST).clamp(min=0)
        figures = {"purity": float(purity.mean()), "amplitude": float(off.mean())}
        if "pitch" in columns:
            asked = torch.tensor([int(pitch) for pitch in columns["pitch"]])
            figures["pitch"] = float((place + 1 == asked).double().mean())
        return figures

    def reconstructions(self, originals: Tensor, outputs: Tensor) -> dict[str, float]:
        """Signal to noise in decibels."""
        error = (originals - outputs).square().mean().clamp(min=1e-12)
        return {"snr": float(10 * torch.log10(originals.square().mean() / error))}

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        items = self.data.held_out()
        rows = [items[i] for i in range(self.data.sizes[1])]
        signals, columns = torch.stack([r["signal"] for r in rows]), [r["pitch"] for r in rows]
        noise = al.Noise.of(0, len(rows)).normal(*self.data.shape)
        return {
            "held out": self.samples(signals, {"pitch": columns}),
            "noise": self.samples(noise, {"pitch": columns}),
        }
