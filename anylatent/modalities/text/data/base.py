"""What all data sets of text share: tokens by a tokenizer trained on them, and facts about them."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item
from anylatent.core.support.disk_cache import cached, digest
from anylatent.core.support.files import UserError
from anylatent.modalities.shared.strings import Picked, tensor_text
from anylatent.modalities.text.attributes import KEYWORD, has
from anylatent.modalities.text.data.documents import PARTS, Documents, split, whole
from anylatent.modalities.text.data.encoder import Encoder, in_words, left_out, taught, tokenized
from anylatent.modalities.text.tokenizer import Tokenizer

_VERSION = "2"
_BYTES = 256


class _Cut(Sequence[Tensor]):
    """One tensor as many, one of each of the `sizes` after another."""

    def __init__(self, whole: Tensor, sizes: Tensor) -> None:
        self.whole, self.sizes, self._ends = whole, sizes, sizes.cumsum(0)

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        end = int(self._ends[index])
        return self.whole[end - int(self.sizes[index]) : end]


class TextSet(Dataset[Item]):
    """Some texts as items, with `lengths` (M,), the number of tokens of each.

    An item has `tokens` (n,) int64, `length` = n, `text`, which is what the tokens say, and the
    columns of the data set.
    """

    def __init__(
        self, tokens: Sequence[Tensor], tokenizer: Tokenizer, columns: Mapping[str, Sequence[Any]]
    ) -> None:
        own = tokens.sizes if isinstance(tokens, _Cut) else [len(row) for row in tokens]
        self.lengths = torch.as_tensor(own, dtype=torch.long)
        self._tokens, self._tokenizer, self._columns = tokens, tokenizer, columns

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        tokens = self._tokens[index].long()
        item: Item = {"tokens": tokens, "length": len(tokens), "text": self.text(index)}
        return item | {name: column[index] for name, column in self._columns.items()}

    def text(self, index: int) -> str:
        """What the tokens of an item say."""
        return self._tokenizer.decode(self._tokens[index].tolist())


class TextData(Data):
    """Texts in three parts that share none; subclasses say where they come from.

    `key` is everything that determines the documents, as plain values; `documents()` is called
    once, when items or facts are first asked for. The tokenizer learns from the training part
    alone: byte pairs up to `vocabulary` tokens, of its first 2^24 characters in the order of the
    split, or the symbols that occur where `kind` is "smiles". A text of more than `longest` tokens
    is left out, or cut to its first ones with `truncate`; one with a symbol that the training part
    lacks is left out. One line on the standard error counts them, and so does the fact `left_out`.
    With a `keyword` there is the class of that name, no or yes: whether a text has this word.

    `tokenizer`, the JSON of a trained model's, reads the texts as that model does: nothing is
    learned then, and, unless they are `parted()`, nothing held out: all are in `train()`.

    Facts: `vocabulary`, the number of tokens; `tokenizer`, its JSON; `lengths`, [length, count] of
    the training part; `shortest` and `longest`, over all parts; `kind`; `keyword`;
    `left_out`; `classes`; `shape`.
    """

    classes: Mapping[str, Sequence[str]] = {}
    shape = ()
    kind: ClassVar[str] = "text"

    def __init__(
        self,
        key: Mapping[str, object],
        vocabulary: int,
        longest: int,
        truncate: bool,
        keyword: str = "",
        tokenizer: str = "",
    ) -> None:
        if vocabulary < _BYTES:
            raise UserError(
                f"vocabulary={vocabulary}: byte pairs need at least {_BYTES} tokens, the bytes"
            )
        if longest < 1:
            raise UserError(f"longest={longest}: a number of tokens is wanted, 1 or more")
        self.vocabulary, self.longest, self.truncate = vocabulary, longest, truncate
        self.keyword, self._given, self._parted = keyword, tokenizer, not tokenizer
        self._sets: dict[str, TextSet] = {}
        if keyword:
            self.classes = {**self.classes, "keyword": KEYWORD}
        self._key = {
            "kind": type(self).__name__,
            "vocabulary": vocabulary,
            "longest": longest,
            "truncate": truncate,
            "version": _VERSION,
            **({"tokenizer": tokenizer} if tokenizer else {}),
            **key,
        }

    @property
    def fingerprint(self) -> str:
        return digest({**self._key, "keyword": self.keyword} if self.keyword else self._key)

    @property
    def name(self) -> str:
        """What messages call the data set."""
        return type(self).__name__.lower()

    @abstractmethod
    def documents(self) -> Documents:
        """All texts, in a fixed order."""

    def train(self) -> TextSet:
        return self.part("train")

    def held_out(self) -> TextSet:
        return self.part("held_out")

    def judged_by(self) -> TextSet:
        """A part that no generator sees, for networks that judge its samples."""
        return self.part("judged_by")

    def parted(self) -> Data:
        self._key["parted"] = self._parted = True
        return self

    def part(self, name: str) -> TextSet:
        """The items of one part."""
        if name not in self._sets:
            self._sets[name] = self._set(name)
        return self._sets[name]

    @property
    def left_out(self) -> dict[str, int]:
        """How many documents are missing, or were cut, by reason."""
        return left_out(self._tensors)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_json(tensor_text(self._tensors["tokenizer"]))

    # ---- parts --------------------------------------------------------------------------------
    @cached_property
    def _documents(self) -> Documents:
        return self.documents()

    def _set(self, name: str) -> TextSet:
        tokens = _Cut(self._tensors[f"{name}.tokens"], self._tensors[f"{name}.sizes"])
        if not (self._documents.columns or self.keyword):
            return TextSet(tokens, self.tokenizer, {})
        rows = self._tensors[f"{name}.rows"].tolist()
        columns = {
            key: [column[row] for row in rows] for key, column in self._documents.columns.items()
        }
        if self.keyword:
            texts = (self._documents.texts[row] for row in rows)
            columns["keyword"] = [has(self.keyword, text) for text in texts]
        return TextSet(tokens, self.tokenizer, columns)

    @cached_property
    def facts(self) -> dict[str, Any]:
        sizes, counts = torch.unique(self._tensors["train.sizes"], return_counts=True)
        every = torch.cat([self._tensors[f"{part}.sizes"] for part in PARTS])
        return {
            "vocabulary": self.tokenizer.size,
            "tokenizer": self.tokenizer.to_json(),
            "lengths": [list(pair) for pair in zip(sizes.tolist(), counts.tolist(), strict=True)],
            "shortest": int(every.min()),
            "longest": int(every.max()),
            "kind": self.kind,
            "left_out": self.left_out,
            "classes": {name: list(values) for name, values in self.classes.items()},
            "shape": [],
            **({"keyword": self.keyword} if self.keyword else {}),
        }

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        """The tokenizer, and rows, sizes and tokens of each part; says what is missing."""
        tensors = cached("text", self._key, self._tokenized)
        if counts := left_out(tensors):
            total = sum(len(tensors[f"{part}.rows"]) for part in PARTS)
            said = in_words(counts, self.longest)
            print(f"{self.name}: {total} texts are used; {said}", file=sys.stderr)
        return tensors

    def _tokenized(self) -> dict[str, Tensor]:
        texts = self._documents.texts
        parts = split(texts, self.name) if self._parted else whole(texts)
        if self._given:
            tokenizer = Tokenizer.from_json(self._given)
        else:
            tokenizer = taught(Picked(texts, parts["train"]), self.kind, self.vocabulary)
        encoder = Encoder(tokenizer, self.longest, self.truncate)
        return tokenized(self._documents, parts, encoder, self.name)
