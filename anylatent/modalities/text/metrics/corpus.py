"""What of a data set the figures need: some texts of each part, and all that were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.latents import Noise
from anylatent.core.modality import Data, Item
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import package_version
from anylatent.modalities.shared.strings import key
from anylatent.modalities.text.metrics import smiles
from anylatent.modalities.text.texts import Text
from anylatent.modalities.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Part:
    """Some texts, and their classes by column."""

    texts: Sequence[Text]
    columns: Mapping[str, Sequence[int]]


@lru_cache(maxsize=1)
def corpus_of(data: Data, limit: int) -> Corpus:
    """That of a data set, which all metrics share."""
    return Corpus(data, limit)


class Corpus:
    """Always the same texts of a data set, in random order: `limit` of each part at most.

    `reference` and `held_out` are as many held-out texts each, and share none; `training` has as
    many training texts, or all if there are fewer; `shuffled` are those of `held_out` with the
    tokens of each in random order. Raises UserError for data with fewer than two held-out texts.
    """

    def __init__(self, data: Data, limit: int) -> None:
        self.data, self.limit = data, limit

    @property
    def smiles(self) -> bool:
        return bool(self.data.facts["kind"] == "smiles")

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        return int(self.data.facts["vocabulary"])

    @property
    def reference(self) -> Part:
        """What distances are measured to."""
        return self._halves[0]

    @property
    def held_out(self) -> Part:
        return self._halves[1]

    @property
    def rows(self) -> dict[str, Part]:
        """The texts of each row of a table of real data."""
        return {"held-out": self.held_out, "training": self.training, "shuffled": self.shuffled}

    @cached_property
    def training(self) -> Part:
        return self.some(self.data.train(), len(self.reference.texts))

    @cached_property
    def shuffled(self) -> Part:
        texts = self.held_out.texts
        longest = max(len(text.tokens) for text in texts)
        places = Noise.of((0, 1), len(texts)).uniform(max(longest, 1))
        mixed = [
            self._text(text.tokens[place[: len(text.tokens)].argsort()])
            for text, place in zip(texts, places, strict=True)
        ]
        return Part(mixed, self.held_out.columns)

    @cached_property
    def known(self) -> dict[str, frozenset[int]]:
        """The keys of all training "texts"; of SMILES, those of the "molecules" they are."""
        made_by: dict[str, object] = {"data": self.data.fingerprint, "version": 1}
        if self.smiles:
            made_by["rdkit"] = package_version("rdkit")
        found = cached("text_keys", made_by, self._keys)
        return {name: frozenset(keys.tolist()) for name, keys in found.items()}

    def some(self, dataset: Dataset[Item], count: int, start: int = 0) -> Part:
        """`count` items from place `start` of a random order that is always the same."""
        size = len(dataset)  # type: ignore[arg-type]
        order = Noise([(0, 2)]).uniform(size)[0].argsort()
        items = [dataset[row] for row in order[start : start + count].tolist()]
        texts = [self._text(item["tokens"]) for item in items]
        return Part(texts, {name: [item[name] for item in items] for name in self.data.classes})

    @cached_property
    def _halves(self) -> tuple[Part, Part]:
        dataset: Any = self.data.held_out()
        count = min(self.limit, len(dataset) // 2)
        if not count:
            raise UserError(
                f"the figures need at least two held-out texts, and there are {len(dataset)}"
            )
        return self.some(dataset, count), self.some(dataset, count, count)

    def _text(self, tokens: Tensor) -> Text:
        return Text.of(tokens.tolist(), self._tokenizer)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_json(self.data.facts["tokenizer"])

    def _keys(self) -> dict[str, Tensor]:
        dataset: Any = self.data.train()
        texts = [self._text(dataset[row]["tokens"]).text for row in range(len(dataset))]
        keys = {"texts": torch.tensor(sorted({key(text) for text in texts}))}
        return keys | ({"molecules": smiles.keys(texts, len(texts))} if self.smiles else {})
