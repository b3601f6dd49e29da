"""Signals in closed form: one cosine each, a·cos(2π·pitch·τ + phase) over one unit of time."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

import anylatent as al

LOWEST, HIGHEST = 0.5, 1.0


class Waves(al.Data):
    """`train_size` and `held_out_size` signals (1, length) of pitch 1 … `pitches` periods.

    The amplitude is uniform in [0.5, 1], the phase in [0, 2π). Columns: `signal` and `pitch`.
    """

    def __init__(
        self,
        length: int = 32,
        pitches: int = 4,
        train_size: int = 512,
        held_out_size: int = 64,
        seed: int = 0,
    ) -> None:
        if not 1 <= pitches < length // 2:
            raise ValueError(f"need 1 <= pitches < length/2, got pitches={pitches}, {length=}")
        self.classes: dict[str, list[str]] = {}
        self.shape = (1, length)
        self.pitches, self.seed = pitches, seed
        self.sizes = (train_size, held_out_size)

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, "pitches": self.pitches}

    @property
    def fingerprint(self) -> str:
        return f"waves 1 {self.shape} {self.pitches} {self.sizes} {self.seed}"

    def train(self) -> Dataset[dict[str, Any]]:
        return _Signals(self, 0, self.sizes[0])

    def held_out(self) -> Dataset[dict[str, Any]]:
        return _Signals(self, 1, self.sizes[1])


class _Signals(Dataset[dict[str, Any]]):
    """Signal i is made from a noise of its own."""

    def __init__(self, data: Waves, part: int, size: int) -> None:
        self.data, self.part, self.size = data, part, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -self.size <= index < self.size:
            raise IndexError(f"signal {index} of {self.size}")
        draw = al.Noise([(self.data.seed, self.part, index % self.size)]).uniform(3)[0].tolist()
        pitch = 1 + int(draw[0] * self.data.pitches)
        amplitude = LOWEST + (HIGHEST - LOWEST) * draw[1]
        time = torch.arange(self.data.shape[1]) / self.data.shape[1]
        signal = amplitude * torch.cos(2 * math.pi * (pitch * time + draw[2]))
        return {"signal": signal[None], "pitch": pitch}


def spectrum(signals: Tensor) -> Tensor:
    """Amplitudes of the frequencies 1, 2, ..., (B, 1, L) to (B, L/2 − 1).

    That of a·cos(2π·k·τ + phase) is a at k and 0 elsewhere.
    """
    return torch.fft.rfft(signals[:, 0].double()).abs()[:, 1:-1] * 2 / signals.shape[-1]
