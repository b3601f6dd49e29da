"""How a stage is trained: steps, batch, learning rate, average."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StageSettings:
    """`batch` is the joint batch of all processes. The learning rate rises over `warmup` steps,
    stays, and falls over the last `decay` fraction of the steps along half a cosine."""

    steps: int
    batch: int
    warmup: int = 100
    decay: float = 1.0
    clip: float = 1.0
    average: float = 0.999
    workers: int = 0
    drop: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.warmup < 0:
            raise ValueError(f"need steps >= 1, batch >= 1 and warmup >= 0, got {self}")
        if not (0 <= self.decay <= 1 and 0 <= self.average < 1 and 0 <= self.drop < 1):
            raise ValueError(f"need decay, average and drop within [0, 1], got {self}")

    def rate(self, step: int) -> float:
        """The factor of the learning rate at a step."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        start = self.steps * (1 - self.decay)
        if step <= start:
            return rise
        return rise * 0.5 * (1 + math.cos(math.pi * (step - start) / (self.steps - start)))
