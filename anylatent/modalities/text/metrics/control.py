"""Does a text have the classes that were asked for? Computed where that is possible, else judged.

A class that follows from the text is computed (see `attributes`). Any other is judged by a logistic
regression on the states of the evaluator, which learned from texts that no generator sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from anylatent.core.modality import ClassLabel
from anylatent.core.support.disk_cache import cached
from anylatent.modalities.text.attributes import computed
from anylatent.modalities.text.metrics import probe
from anylatent.modalities.text.metrics.corpus import Corpus, Part
from anylatent.modalities.text.metrics.judge import Judge
from anylatent.modalities.text.texts import Text

LEARNED = 10_000
"""Texts that a classifier learns from, at most."""


class Computed:
    """A class that follows from the text itself; -1 where it has none."""

    prefix, note = "accuracy", ""

    def __init__(self, function: Callable[[str], int]) -> None:
        self.function = function

    def classes(self, texts: Sequence[Text]) -> Tensor:
        """The class of each text, (N,)."""
        return torch.tensor([self.function(text.text) for text in texts])


class Judged:
    """The class that a classifier on the states of the judge's evaluator finds most likely."""

    prefix = "judged"

    def __init__(self, column: str, corpus: Corpus, judge: Judge) -> None:
        self.column, self.corpus, self.judge = column, corpus, judge
        self._made_by = {"evaluator": judge.made_by, "column": column, "version": probe.VERSION}

    def classes(self, texts: Sequence[Text]) -> Tensor:
        """The class of each text, (N,)."""
        return probe.named(self._state, self._features(texts))

    @cached_property
    def note(self) -> str:
        """How often it is right, and how often a guess would be."""
        parts = (self.corpus.reference, self.corpus.held_out)
        right = torch.cat([self.classes(part.texts) == self._labels(part) for part in parts])
        labels = torch.cat([self._labels(part) for part in parts])
        return (
            f"judged_{self.column}: by a classifier on the evaluator's states, right about "
            f"{float(right.double().mean()):.1%} of {len(right)} held-out texts (the most frequent "
            f"class: {float((labels == labels.mode().values).double().mean()):.1%})."
        )

    @cached_property
    def _state(self) -> dict[str, Tensor]:
        return cached("text_classifier", self._made_by, self._learn)

    def _learn(self) -> dict[str, Tensor]:
        part = self.corpus.some(self.corpus.data.judged_by(), LEARNED)
        classes = len(self.corpus.data.classes[self.column])
        return probe.fit(self._features(part.texts), self._labels(part), classes)

    def _features(self, texts: Sequence[Text]) -> Tensor:
        return self.judge.evaluator.features([text.tokens for text in texts])

    def _labels(self, part: Part) -> Tensor:
        return torch.tensor(part.columns[self.column])


class Control:
    """The figures of what was asked of texts, by column."""

    def __init__(self, corpus: Corpus, judge: Judge) -> None:
        self.corpus, self.judge = corpus, judge
        self._judges: dict[str, Computed | Judged] = {}

    def row(self, texts: Sequence[Text], columns: Mapping[str, Any]) -> dict[str, float]:
        """`accuracy_<column>` or `judged_<column>`, the share of texts of the class asked for, and
        `chance_<column>`.

        Chance is the share that held-out texts have when they are paired at random with what was
        asked. Texts of which nothing was asked (None) don't count.
        """
        row: dict[str, float] = {}
        for column, names in self.corpus.data.classes.items():
            if column not in columns:
                continue
            asked = labels(column, names, columns, len(texts))
            if bool((asked >= 0).any()):
                row |= self._agreement(column, texts, asked)
        return row

    @property
    def notes(self) -> list[str]:
        """Of the classifiers that were used."""
        return [judge.note for judge in self._judges.values() if judge.note]

    def _agreement(self, column: str, texts: Sequence[Text], asked: Tensor) -> dict[str, float]:
        judge, wanted = self._judge(column), asked >= 0
        right = (judge.classes(texts) == asked)[wanted]
        real = judge.classes(self.corpus.reference.texts)
        return {
            f"{judge.prefix}_{column}": float(right.double().mean()),
            f"chance_{column}": float((real[:, None] == asked[wanted]).double().mean()),
        }

    def _judge(self, column: str) -> Computed | Judged:
        if column not in self._judges:
            function = computed(column, self.corpus.data.facts)
            self._judges[column] = (
                Judged(column, self.corpus, self.judge) if function is None else Computed(function)
            )
        return self._judges[column]


def labels(column: str, names: Sequence[str], columns: Mapping[str, Any], count: int) -> Tensor:
    """The classes asked for, (count,), of a column of names, indices or None, which becomes -1.

    One entry stands for all texts. Raises ValueError for unknown names and a wrong number.
    """
    cond = ClassLabel({column: names}, column)({column: columns[column]})
    asked = torch.where(cond.keep[column], cond.values[column], -1)
    if len(asked) not in (1, count):
        raise ValueError(f"'{column}' has {len(asked)} entries for {count} texts")
    return asked.expand(count)
