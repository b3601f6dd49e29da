"""The pitch as a condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import anylatent as al


class Pitch(al.Conditioner):
    """The column `pitch`, 1 … `pitches`, as a number in [-1, 1]; None drops it."""

    def __init__(self, pitches: int = 4) -> None:
        super().__init__()
        self.pitches = pitches
        self.spec = al.ConditionSpec(scalars=("pitch",))

    def forward(self, columns: Mapping[str, Any]) -> al.Condition:
        if not columns:
            return al.Condition()
        if set(columns) != {"pitch"}:
            raise ValueError(f"the condition is 'pitch', got {', '.join(columns)}")
        entries = [None if entry is None else self._number(entry) for entry in columns["pitch"]]
        value = torch.tensor([0.0 if entry is None else entry for entry in entries])
        keep = torch.tensor([entry is not None for entry in entries])
        return al.Condition({"pitch": value}, {"pitch": keep})

    def _number(self, entry: Any) -> float:
        if not 1 <= int(entry) <= self.pitches:
            raise ValueError(f"a pitch is a whole number from 1 to {self.pitches}, got {entry}")
        return (2 * int(entry) - self.pitches - 1) / max(1, self.pitches - 1)
