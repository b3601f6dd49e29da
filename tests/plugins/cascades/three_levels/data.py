"""Rows of 14 numbers: three levels, one after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

import anylatent as al

SIZES = {"top": (2,), "middle": (4,), "bottom": (4, 2)}
MEAN, STDS, SLOPES = 0.5, (0.8, 0.3, 0.4), (0.9, -0.7)


class LevelData(al.Data):
    """`train_size` and `held_out_size` rows of the law in `three_levels`. Columns: `levels`,
    `sign`."""

    def __init__(self, train_size: int = 1024, held_out_size: int = 256, seed: int = 0) -> None:
        self.classes = {"sign": ["minus", "plus"]}
        self.shape = (14,)
        self.sizes, self.seed = (train_size, held_out_size), seed

    @property
    def fingerprint(self) -> str:
        return f"levels 1 {self.sizes} {self.seed}"

    def train(self) -> Dataset[dict[str, Any]]:
        return Rows(self, 0)

    def held_out(self) -> Dataset[dict[str, Any]]:
        return Rows(self, 1)


class Rows(Dataset[dict[str, Any]]):
    """Row i is made from a noise of its own."""

    def __init__(self, data: LevelData, part: int) -> None:
        size = data.sizes[part]
        noise = al.Noise([(data.seed, part, i) for i in range(size)])
        self.sign = (noise.uniform() > 0.5).long()
        e = noise.normal(14).split((2, 4, 8), 1)
        top = MEAN * (2 * self.sign[:, None] - 1) + STDS[0] * e[0]
        middle = SLOPES[0] * top.repeat_interleave(2, 1) + STDS[1] * e[1]
        bottom = SLOPES[1] * middle.repeat_interleave(2, 1) + STDS[2] * e[2]
        self.rows: Tensor = torch.cat([top, middle, bottom], 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"levels": self.rows[index], "sign": int(self.sign[index])}
