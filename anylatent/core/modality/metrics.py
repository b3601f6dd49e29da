"""Figures about samples and reconstructions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from anylatent.core.modality.outputs import Outputs


class Metrics(ABC):
    """Figures about samples, prepared once for a data set (reference features, classifiers)."""

    @property
    def notes(self) -> Sequence[str]:
        """What must be said below the table, such as where a row comes from."""
        return ()

    @abstractmethod
    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        """Figures of a set of samples drawn under the conditions in `columns`, against the data."""

    @abstractmethod
    def reconstructions(self, originals: Outputs, outputs: Outputs) -> dict[str, float]:
        """Figures of how well an autoencoder restores its input."""

    @abstractmethod
    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """The same figures as `samples` for held-out data, and for data made worse, by row name.

        `conditions` names the columns under which samples are drawn.
        """
