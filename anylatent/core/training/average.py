"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The average of a network's trainable parameters with decay min(decay, (1 + n)/(10 + n)).

    A decay of 0 follows the parameters. Buffers are the network's own.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of an average must lie in [0, 1), got {decay}")
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.shadow = [p.detach().clone() for p in self.parameters]
        self.decay = decay

    def to(self, device: torch.device) -> None:
        self.shadow = [value.to(device) for value in self.shadow]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step n = 0, 1, ... of the optimiser."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        torch._foreach_lerp_(self.shadow, list(self.parameters), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the parameters with their average."""
        for parameter, value in zip(self.parameters, self.shadow, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network with its averaged parameters, for the length of a block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state(self) -> list[Tensor]:
        return self.shadow

    def load(self, state: list[Tensor]) -> None:
        for value, saved in zip(self.shadow, state, strict=True):
            value.copy_(saved)
