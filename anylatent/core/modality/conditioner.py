"""Raw columns as conditions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import nn

from anylatent.core.latents import Condition, ConditionSpec
from anylatent.core.registry import group


class Conditioner(nn.Module, ABC):
    """Turns raw columns (captions, class names, ...) into the tensors of a `Condition`.

    Frozen: its output is cached with the latents.
    """

    spec: ConditionSpec

    @abstractmethod
    def forward(self, columns: Mapping[str, Any]) -> Condition:
        """`columns` as in a batch, or as a user gave them: one entry per sample and name.

        Unknown names and values are errors that list what is allowed.
        """


group("conditioner", Conditioner, facts=True)
