"""Molecules of wanted properties: numbers in the data's units as conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Condition, ConditionSpec
from anylatent.core.modality import Conditioner, column_entries, given

Facts = Mapping[str, Mapping[str, Any]]
"""What `Data.facts["properties"]` says of each: mean, std, min, max and unit."""


class Properties(Conditioner):
    """Scalars (value − mean) / std, shape (B,), of the properties `names` (all where it is empty).

    Values are numbers in the data's units; mean and standard deviation are those of the training
    data. None drops a property for that sample, and so does leaving it out; no columns at all are
    no condition.

    Raises ValueError for unknown properties, for what is no finite number, and for values farther
    beyond the training data than these are wide: they are rather of another unit. Messages list
    the properties with units, ranges and means.
    """

    def __init__(self, properties: Facts | None = None, names: tuple[str, ...] = ()) -> None:
        super().__init__()
        known = dict(properties or {})
        if not known:
            raise ValueError("the data set has no properties: use conditioner=none")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(
                f"the data set has no property {', '.join(unknown)}; it has {_listed(known)}"
            )
        self.properties = {name: known[name] for name in names} if names else known
        self.spec = ConditionSpec(scalars=tuple(self.properties))

    def forward(self, columns: Mapping[str, Any]) -> Condition:
        names = [name for name in self.properties if name in columns]
        if columns and not names:
            raise ValueError(
                f"unknown condition {', '.join(columns)}; this model has {_listed(self.properties)}"
            )
        values, keep = {}, {}
        for name in names:
            entries = column_entries(columns, name) or []
            values[name] = torch.tensor([self._normalised(name, entry) for entry in entries])
            keep[name] = given(entries)
        return Condition(values, keep)

    def denormalised(self, name: str, value: Tensor) -> Tensor:
        """In the data's units."""
        fact = self.properties[name]
        return value * _scale(fact) + float(fact["mean"])

    def _normalised(self, name: str, entry: object) -> float:
        if entry is None:
            return 0.0
        fact = self.properties[name]
        if isinstance(entry, bool) or not isinstance(entry, (int, float)):
            raise ValueError(f"{name} is a number, got {entry!r}; {_listed({name: fact})}")
        mean, low, high = (float(fact[key]) for key in ("mean", "min", "max"))
        if not 2 * low - high <= entry <= 2 * high - low:  # nor does "not a number"
            raise ValueError(
                f"{name}={entry:g} is far outside the training data: {_listed({name: fact})}"
            )
        return (entry - mean) / _scale(fact)


def _scale(fact: Mapping[str, Any]) -> float:
    std = float(fact["std"])
    return std if std > 0 and math.isfinite(std) else 1.0


def _listed(properties: Facts) -> str:
    """Such as "gap (0.67 to 16.9 eV, mean 6.86)"."""
    return ", ".join(
        f"{name} ({fact['min']:.3g} to {fact['max']:.3g} {fact['unit']}, mean {fact['mean']:.3g})"
        for name, fact in properties.items()
    )
