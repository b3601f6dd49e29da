"""How a stage is trained: steps, batch, learning rate, average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from anylatent.core.registry import register


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


@register("optimizer", "adamw")
class AdamW:
    """Adam with decoupled weight decay (1711.05101)."""

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
    ) -> None:
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Sequence[torch.optim.Optimizer]:
        return [
            torch.optim.AdamW(
                list(parameters), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
            )
        ]


@register("optimizer", "muon")
class Muon:
    """Muon for matrices (convolutions flattened are left to AdamW), AdamW for the rest.

    `lr` is AdamW's; `matrix_lr` Muon's, scaled to match AdamW's update size (2502.16982).
    """

    def __init__(
        self,
        lr: float = 1e-3,
        matrix_lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
    ) -> None:
        self.matrix_lr, self.weight_decay = matrix_lr, weight_decay
        self.rest = AdamW(lr, betas, weight_decay)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Sequence[torch.optim.Optimizer]:
        every = list(parameters)
        matrices = [p for p in every if p.ndim == 2]
        others = [p for p in every if p.ndim != 2]
        muon = torch.optim.Muon(
            matrices,
            lr=self.matrix_lr,
            weight_decay=self.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        return [muon, *(self.rest(others) if others else [])]
