"""What a user asks of each sample, `cond.NAME=...`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anylatent.core.support.files import UserError


def asked_of(cond: Mapping[str, Any], name: str, samples: int) -> list[Any]:
    """What is asked under a name, for each sample, from a list or from one for all; None where
    nothing is. Raises UserError for another number of values."""
    value = cond.get(name)
    if isinstance(value, Tensor):
        value = value.tolist() if value.ndim == 1 else list(value)
    entries = value
    found = list(entries) if isinstance(entries, (list, tuple)) else [entries] * samples
    if len(found) != samples:
        raise UserError(f"cond.{name} has {len(found)} values for {samples} samples")
    return found
