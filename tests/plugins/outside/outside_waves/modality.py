"""Signals: how they are batched, varied and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import anylatent as al
from outside_waves.data import HIGHEST, LOWEST, Waves, spectrum
from outside_waves.outputs import Signals

Columns = Mapping[str, Any]


class WaveModality(al.Modality):
    """Signals of one length, outputs `Signals`; training shifts them around by whole samples."""

    def augment(self, batch: Columns, noise: al.Noise) -> dict[str, Any]:
        signal: Tensor = batch["signal"]
        length = signal.shape[-1]
        shift = (noise.uniform() * length).long().to(signal.device)
        index = (torch.arange(length, device=signal.device) + shift[:, None]) % length
        return {**batch, "signal": signal.gather(-1, index[:, None])}

    def originals(self, batch: Columns) -> Signals:
        return Signals(batch["signal"])


class WaveFigures(al.Metric):
    """Figures against the closed form: a signal has one frequency, of amplitude in [0.5, 1]."""

    modality = "waves"

    def __init__(self, data: Waves) -> None:
        self.data = data

    def samples(self, outputs: al.Outputs, columns: Columns) -> dict[str, float]:
        """Purity: the share of the power in the strongest frequency. 1 for a cosine.

        `amplitude`: its distance from [0.5, 1], on average. `pitch`: how often it is the one asked.
        """
        assert isinstance(outputs, Signals)
        amplitudes = spectrum(outputs.tensor)
        peak, place = amplitudes.max(1)
        purity = peak.square() / amplitudes.square().sum(1).clamp(min=1e-12)
        off = (LOWEST - peak).clamp(min=0) + (peak - HIGHEST).clamp(min=0)
        figures = {"purity": float(purity.mean()), "amplitude": float(off.mean())}
        if "pitch" in columns:
            asked = torch.tensor([int(pitch) for pitch in columns["pitch"]])
            figures["pitch"] = float((place + 1 == asked).double().mean())
        return figures

    def reconstructions(self, originals: al.Outputs, outputs: al.Outputs) -> dict[str, float]:
        """Signal to noise in decibels."""
        assert isinstance(originals, Signals) and isinstance(outputs, Signals)
        error = (originals.tensor - outputs.tensor).square().mean().clamp(min=1e-12)
        return {"snr": float(10 * torch.log10(originals.tensor.square().mean() / error))}

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        items = self.data.held_out()
        rows = [items[i] for i in range(self.data.sizes[1])]
        signals, columns = torch.stack([r["signal"] for r in rows]), [r["pitch"] for r in rows]
        noise = al.Noise.of(0, len(rows)).normal(*self.data.shape)
        return {
            "held out": self.samples(Signals(signals), {"pitch": columns}),
            "noise": self.samples(Signals(noise), {"pitch": columns}),
        }
