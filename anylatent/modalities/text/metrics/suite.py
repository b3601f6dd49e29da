"""The table of figures by which generated and restored texts are judged.

N-gram divergences, distinct-n and the distance of lengths depend on how many texts are compared, so
all rows compare as many: `limit`, or fewer where the data or the samples have fewer. They are
always compared with the same held-out texts; the row "held-out" has as many others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from anylatent.core.modality import Data, Metrics, Outputs
from anylatent.core.support.disk_cache import cached
from anylatent.modalities.shared.strings import key
from anylatent.modalities.text.metrics import evaluator, ngrams, smiles
from anylatent.modalities.text.metrics.control import Control
from anylatent.modalities.text.metrics.corpus import Corpus
from anylatent.modalities.text.texts import Text

ORDERS = (1, 2, 3, 4)


class TextMetrics(Metrics):
    """Figures of texts against a corpus: held-out texts, and a language model of other texts.

    A row of samples holds

    - `texts`: how many the divergences, `distinct` and `length_w1` are about;
    - `evaluator_nll`: nats per token, the end of a text among them, under a transformer learned
      from a part of the corpus that no generator sees (see `evaluator`);
      `evaluator_nll_character`: the same nats per character, the end counted as one, which
      compares texts of different tokenizers. Near the held-out row's is good, below is not better;
    - `divergence_1` ... `divergence_4`: Jensen-Shannon, in bits, of token n-grams to held-out
      texts; `distinct_1` ... `distinct_4`: different n-grams as a share of all (1510.03055);
    - `length_w1`: the Wasserstein distance of the numbers of tokens;
    - `copied`: the share that is a training text, letter by letter;
    - of SMILES `valid`, `unique`, `novel` and `valid_unique_novel`, see `smiles.shares`;
    - for each class column that was asked for, `accuracy_<column>` where the class can be computed
      from the text, else `judged_<column>` by a classifier that may err (the notes say how often);
      beside it `chance_<column>`, that of held-out texts paired with the classes at random.

    All but those named at `texts` are about every text given; `unique` falls with their number. A
    figure without meaning is left out of its row: 4-grams of three tokens, uniqueness where nothing
    is valid. The language model takes at most `steps` steps; it, the classifiers and the keys of
    the training texts are made at first use and kept on disk.
    """

    def __init__(self, data: Data, limit: int = 1000, steps: int = evaluator.STEPS) -> None:
        if limit < 1 or steps < 1:
            raise ValueError(f"need limit >= 1 and steps >= 1, got {limit} and {steps}")
        self.data, self.steps, self.corpus = data, steps, Corpus(data, limit)

    @property
    def notes(self) -> Sequence[str]:
        count = len(self.corpus.reference.texts)
        return [
            f"Divergences, distinct-n and length_w1 are of the first {count} texts of a row (or "
            "all, where there are fewer) against as many held-out ones, and depend on that number.",
            *self._control.notes,
        ]

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> dict[str, float]:
        return self._row(_check(outputs), columns)

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> dict[str, float]:
        """How well texts are restored.

        `tokens_restored`: tokens in their places, as a share of the longer text of each pair;
        `texts_restored`: the share of texts with every token right; `edit_distance`: the mean
        Levenshtein distance in tokens, as a share of the longer text; of SMILES
        `molecules_restored`: the share that is the same molecule, however written. Raises
        ValueError unless there are as many originals as outputs.
        """
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
        if self.corpus.smiles:
            strings = zip(before, after, strict=True)
            row["molecules_restored"] = _mean(smiles.same(a.text, b.text) for a, b in strings)
        return row

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """The rows "held-out", "training" and "shuffled": held-out texts with the tokens of each
        in random order, so that lengths and single tokens are right and nothing else.

        Of each row are asked its own classes, in those of `conditions` that are class columns.
        """
        corpus, names = self.corpus, [name for name in conditions if name in self.data.classes]
        parts = {
            "held-out": corpus.held_out,
            "training": corpus.training,
            "shuffled": corpus.shuffled,
        }
        return {
            row: self._row(part.texts, {name: part.columns[name] for name in names})
            for row, part in parts.items()
        }

    def _row(self, texts: Sequence[Text], columns: Mapping[str, Any]) -> dict[str, float]:
        known, strings = self.corpus.known, [text.text for text in texts]
        return {
            **self._distances(texts),
            **self._likelihood(texts),
            "copied": _mean(key(string) in known["texts"] for string in strings),
            **(smiles.shares(strings, known["molecules"]) if self.corpus.smiles else {}),
            **self._control.row(texts, columns),
        }

    def _distances(self, texts: Sequence[Text]) -> dict[str, float]:
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

    def _likelihood(self, texts: Sequence[Text]) -> dict[str, float]:
        nats = float(self._evaluator.nats([text.tokens for text in texts]).sum())
        tokens = sum(len(text.tokens) + 1 for text in texts)
        characters = sum(len(text.text) + 1 for text in texts)
        return {"evaluator_nll": nats / tokens, "evaluator_nll_character": nats / characters}

    @cached_property
    def _control(self) -> Control:
        return Control(self.corpus, self._evaluator, self._made_by)

    @cached_property
    def _evaluator(self) -> evaluator.Evaluator:
        state = cached("text_evaluator", self._made_by, self._learn)
        return evaluator.Evaluator(state, self.corpus.vocabulary)

    @property
    def _made_by(self) -> dict[str, object]:
        made_by = {"data": self.data.fingerprint, "steps": self.steps}
        return {**made_by, "version": evaluator.VERSION}

    def _learn(self) -> dict[str, torch.Tensor]:
        dataset: Any = self.data.judged_by()
        texts = [dataset[row]["tokens"] for row in range(len(dataset))]
        return evaluator.learn(texts, self.corpus.vocabulary, self.steps)


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
