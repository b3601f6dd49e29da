"""Small data sets of text by hand, and their figures."""

from __future__ import annotations

import torch

from anylatent.core.modality.data import Data
from anylatent.core.modality.metrics import Metrics
from anylatent.modalities.text.metrics import (
    Classes,
    Copies,
    Likelihood,
    NGrams,
    SmilesShares,
    TextsRestored,
    evaluator,
)
from anylatent.modalities.text.metrics.corpus import Corpus
from anylatent.modalities.text.modality import TextModality
from anylatent.modalities.text.texts import Text, Texts
from anylatent.modalities.text.tokenizer import Symbols


class Few(Data):
    """The strings given, each with its classes; one symbol is one token."""

    shape = ()

    def __init__(
        self, train, held_out, judged=(), *, kind="text", name="few", tokenizer=None, classes=None
    ) -> None:
        every = [*train, *held_out, *judged]
        self.tokenizer = tokenizer or Symbols.train(entry[0] for entry in map(_pair, every))
        self.classes, self._kind, self._name = classes or {}, kind, name
        self._parts = [self._items(part) for part in (train, held_out, judged or train)]

    def _items(self, entries):
        items = []
        for text, labels in map(_pair, entries):
            tokens = torch.tensor(self.tokenizer.encode(text), dtype=torch.long)
            items.append({"tokens": tokens, "length": len(tokens), **labels})
        return items

    @property
    def facts(self):
        return {
            **super().facts,
            "kind": self._kind,
            "vocabulary": self.tokenizer.size,
            "tokenizer": self.tokenizer.to_json(),
        }

    @property
    def fingerprint(self):
        return self._name

    def train(self):
        return self._parts[0]

    def held_out(self):
        return self._parts[1]

    def judged_by(self):
        return self._parts[2]

    def texts(self, *strings) -> Texts:
        """Outputs that say this."""
        return Texts(Text.of(self.tokenizer.encode(string), self.tokenizer) for string in strings)


def table(data, limit=1000, steps=evaluator.STEPS) -> Metrics:
    """The metrics of texts that apply."""
    few, judged = {"limit": limit}, {"limit": limit, "steps": steps}
    kinds = {
        NGrams: few, Likelihood: judged, Copies: few, SmilesShares: few, Classes: judged,
        TextsRestored: {},
    }  # fmt: skip
    modality = TextModality()
    return Metrics(
        [kind(data, **how) for kind, how in kinds.items() if kind.applies(modality, data)]
    )


def corpus_in(metrics: Metrics) -> Corpus:
    return metrics.metrics[0].corpus


def _pair(entry):
    return (entry, {}) if isinstance(entry, str) else entry
