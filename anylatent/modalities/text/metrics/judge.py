"""The evaluator of a data set, learned once and kept on disk."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

from torch import Tensor

from anylatent.core.modality import Data
from anylatent.core.support.disk_cache import cached
from anylatent.modalities.text.metrics import evaluator


@lru_cache(maxsize=1)
def judge_of(data: Data, steps: int) -> Judge:
    """That of a data set, which all metrics share."""
    return Judge(data, steps)


class Judge:
    """A language model of `data.judged_by()`, learned in at most `steps` steps at first use."""

    def __init__(self, data: Data, steps: int) -> None:
        self.data, self.steps = data, steps

    @property
    def made_by(self) -> dict[str, object]:
        """All that determines it."""
        made_by = {"data": self.data.fingerprint, "steps": self.steps}
        return {**made_by, "version": evaluator.VERSION}

    @cached_property
    def evaluator(self) -> evaluator.Evaluator:
        state = cached("text_evaluator", self.made_by, self._learn)
        return evaluator.Evaluator(state, self._vocabulary)

    @property
    def _vocabulary(self) -> int:
        return int(self.data.facts["vocabulary"])

    def _learn(self) -> dict[str, Tensor]:
        dataset: Any = self.data.judged_by()
        texts = [dataset[row]["tokens"] for row in range(len(dataset))]
        return evaluator.learn(texts, self._vocabulary, self.steps)
