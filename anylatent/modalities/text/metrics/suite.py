"""The metrics of texts: n-grams, likelihood, copies, chemistry, classes, and restoration.

N-gram divergences, distinct-n and the distance of lengths depend on how many texts are compared, so
all rows compare as many: `limit`, or fewer where the data or the samples have fewer. They are
always compared with the same held-out texts; the row "held-out" has as many others. All other
figures are about every text given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from anylatent.core.modality import Data, Metric, Modality, Outputs
from anylatent.modalities.shared.strings import key
from anylatent.modalities.text.metrics import evaluator, ngrams, smiles
from anylatent.modalities.text.metrics.control import Control
from anylatent.modalities.text.metrics.corpus import corpus_of
from anylatent.modalities.text.metrics.judge import judge_of
from anylatent.modalities.text.texts import Text

ORDERS = (1, 2, 3, 4)


class TextMetric(Metric, ABC):
    """Figures of texts beside those of held-out texts, training texts, and "shuffled": held-out
    texts with the tokens of each in random order, so that lengths and single tokens are right and
    nothing else."""

    modality: ClassVar[str] = "text"

    def __init__(self, data: Data, limit: int = 1000) -> None:
        if limit < 1:
            raise ValueError(f"need limit >= 1, got {limit}")
        self.data, self.corpus = data, corpus_of(data, limit)

    @abstractmethod
    def row(self, texts: Sequence[Text], columns: Mapping[str, Any]) -> dict[str, float]:
        """The figures of some texts, of which the classes in `columns` were asked."""

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        return self.row(_check(outputs), columns)

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """Of each row are asked its own classes, of the class columns among `conditions`."""
        asked = [name for name in conditions if name in self.data.classes]
        return {
            name: self.row(part.texts, {column: part.columns[column] for column in asked})
            for name, part in self.corpus.rows.items()
        }


class NGrams(TextMetric):
    """Token n-grams and lengths against at most `limit` held-out texts.

    `texts`: how many they are about; `divergence_1` ... `divergence_4`: Jensen-Shannon, in bits;
    `distinct_1` ... `distinct_4`: different n-grams as a share of all (1510.03055); `length_w1`:
    the Wasserstein distance of the numbers of tokens. What has no meaning, such as 4-grams of three
    tokens, is left out.
    """

    place: ClassVar[int] = 0

    @property
    def notes(self) -> Sequence[str]:
        count = len(self.corpus.reference.texts)
        return [
            f"Divergences, distinct-n and length_w1 are of the first {count} texts of a row (or "
            "all, where there are fewer) against as many held-out ones, and depend on that number."
        ]

    def row(self, texts: Sequence[Text], columns: Mapping[str, Any]) -> dict[str, float]:
        """Of the first texts, to as many held-out ones."""
        pairs = list(zip(texts, self.corpus.reference.texts, strict=False))
        ours, real = ([text.tokens.tolist() for text in part] for part in zip(*pairs, strict=True))
        counts = {n: ngrams.grams(ours, n) for n in ORDERS}
        far = {n: ngrams.divergence(counts[n], ngrams.grams(real, n)) for n in ORDERS}
        lengths = (torch.tensor([len(ids) for ids in part]) for part in (ours, real))
        row = {
            "texts": float(len(pairs)),
            **{f"divergence_{n}": far[n] for n in ORDERS},
            **{f"distinct_{n}": ngrams.distinct(counts[n]) for n in ORDERS},
            "length_w1": ngrams.length_distance(*lengths),
        }
        return {name: value for name, value in row.items() if value == value}  # no NaN


class JudgedMetric(TextMetric, ABC):
    """Figures by a language model that learned, in at most `steps` steps, from a part of the corpus
    that no generator sees; see `evaluator`. It is made at first use and kept on disk."""

    def __init__(self, data: Data, limit: int = 1000, steps: int = evaluator.STEPS) -> None:
        super().__init__(data, limit)
        if steps < 1:
            raise ValueError(f"need steps >= 1, got {steps}")
        self.judge = judge_of(data, steps)


class Likelihood(JudgedMetric):
    """Likelihood of texts under a language model of other texts.

    `evaluator_nll`: nats per token, the end of a text among them; `evaluator_nll_character`: the
    same per character, the end counted as one, which compares texts of different tokenizers. Near
    the held-out row's is good, below is not better. The model learned in at most `steps` steps;
    `limit` texts make a row of real data.
    """

    place: ClassVar[int] = 1

    def row(self, texts: Sequence[Text], columns: Mapping[str, Any]) -> dict[str, float]:
        nats = float(self.judge.evaluator.nats([text.tokens for text in texts]).sum())
        tokens = sum(len(text.tokens) + 1 for text in texts)
        characters = sum(len(text.text) + 1 for text in texts)
        return {"evaluator_nll": nats / tokens, "evaluator_nll_character": nats / characters}


class Copies(TextMetric):
    """`copied`: the share that is a training text, letter by letter.

    `limit` texts make a row of real data.
    """

    place: ClassVar[int] = 2

    def row(self, texts: Sequence[Text], columns: Mapping[str, Any]) -> dict[str, float]:
        known = self.corpus.known["texts"]
        return {"copied": _mean(key(text.text) in known for text in texts)}


class SmilesShares(TextMetric):
    """Shares of SMILES that are valid, unique, new.

    `valid`, `unique`, `novel` and `valid_unique_novel`, see `smiles.shares`; `unique` falls with
    their number. `limit` texts make a row of real data.
    """

    place: ClassVar[int] = 3

    @classmethod
    def applies(cls, modality: Modality, data: Data) -> bool:
        return super().applies(modality, data) and data.facts["kind"] == "smiles"

    def row(self, texts: Sequence[Text], columns: Mapping[str, Any]) -> dict[str, float]:
        return smiles.shares([text.text for text in texts], self.corpus.known["molecules"])


class Classes(JudgedMetric):
    """How often texts are of the class that was asked for.

    For each class column `accuracy_<column>` where the class can be computed from the text, else
    `judged_<column>` by a classifier that may err (the notes say how often) on the states of a
    language model that learned in at most `steps` steps; beside it `chance_<column>`, that of
    held-out texts, at most `limit`, paired with the classes at random.
    """

    place: ClassVar[int] = 4

    def __init__(self, data: Data, limit: int = 1000, steps: int = evaluator.STEPS) -> None:
        super().__init__(data, limit, steps)
        self.control = Control(self.corpus, self.judge)

    @classmethod
    def applies(cls, modality: Modality, data: Data) -> bool:
        return super().applies(modality, data) and bool(data.classes)

    @property
    def notes(self) -> Sequence[str]:
        return self.control.notes

    def row(self, texts: Sequence[Text], columns: Mapping[str, Any]) -> dict[str, float]:
        return self.control.row(texts, columns)


class TextsRestored(Metric):
    """How well texts are restored.

    `tokens_restored`: tokens in their places, as a share of the longer text of each pair;
    `texts_restored`: the share of texts with every token right; `edit_distance`: the mean
    Levenshtein distance in tokens, as a share of the longer text; of SMILES `molecules_restored`:
    the share that is the same molecule, however written. Raises ValueError unless there are as many
    originals as outputs.
    """

    modality: ClassVar[str] = "text"
    place: ClassVar[int] = 5

    def __init__(self, data: Data) -> None:
        self.data = data

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> dict[str, float]:
        before, after = _check(originals), _check(outputs)
        if len(before) != len(after):
            raise ValueError(f"{len(before)} originals do not fit {len(after)} restored texts")
        pairs = [(a.tokens.tolist(), b.tokens.tolist()) for a, b in zip(before, after, strict=True)]
        right = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
        row = {
            "tokens_restored": right / max(sum(_longer(a, b) for a, b in pairs), 1),
            "texts_restored": _mean(a == b for a, b in pairs),
            "edit_distance": _mean(
                ngrams.edit_distance(a, b) / max(_longer(a, b), 1) for a, b in pairs
            ),
        }
        if self.data.facts["kind"] == "smiles":
            strings = zip(before, after, strict=True)
            row["molecules_restored"] = _mean(smiles.same(a.text, b.text) for a, b in strings)
        return row


def _longer(a: Sequence[int], b: Sequence[int]) -> int:
    return max(len(a), len(b))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _check(outputs: Outputs) -> Sequence[Text]:
    if (
        not isinstance(outputs, Sequence)
        or not len(outputs)
        or not all(isinstance(text, Text) for text in outputs)
    ):
        got = f"{type(outputs).__name__}"
        raise ValueError(f"the figures need Texts, at least one; got {got}")
    return outputs
