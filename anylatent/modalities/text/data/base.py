"""What all data sets of text share: tokens by a tokenizer trained on them, and facts about them."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item
from anylatent.core.support.disk_cache import cached, digest
from anylatent.core.support.files import UserError
from anylatent.core.support.progress import bar
from anylatent.modalities.shared.strings import tensor_text, text_tensor
from anylatent.modalities.text.attributes import KEYWORD, has
from anylatent.modalities.text.data.documents import PARTS, Documents, split
from anylatent.modalities.text.tokenizer import BytePairs, Symbols, Tokenizer

_VERSION = "1"
_BYTES = 256

REASONS: Mapping[str, str] = {
    "copy": "left out: cut, they are texts of another part",
    "cut": "cut to their first LONGEST tokens",
    "duplicate": "left out: other spellings of molecules that are used",
    "no_molecule": "left out: RDKit finds no molecule in them",
    "too_long": "left out: longer than LONGEST tokens",
    "unknown_symbol": "left out: a symbol of theirs is not in the training part",
}
"""What is said of the documents that `left_out` counts."""


class TextSet(Dataset[Item]):
    """Some texts as items, with `lengths` (M,), the number of tokens of each.

    An item has `tokens` (n,) int64, `length` = n, `text`, which is what the tokens say, and the
    columns of the data set.
    """

    def __init__(
        self, tokens: Sequence[Tensor], tokenizer: Tokenizer, columns: Mapping[str, Sequence[Any]]
    ) -> None:
        self.lengths = torch.tensor([len(row) for row in tokens], dtype=torch.long)
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
    alone: byte pairs up to `vocabulary` tokens, or the symbols that occur where `kind` is
    "smiles". A text of more than `longest` tokens is left out, or cut to its first ones with
    `truncate`; one with a symbol that the training part lacks is left out. One line on the
    standard error counts them, and so does the fact `left_out`. With a `keyword` there is the class
    of that name, no or yes: whether a text has this word.

    `tokenizer`, the JSON of a trained model's, reads the texts as that model does: nothing is
    learned then, and nothing held out; all texts are in `train()`, in their order.

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
        self.keyword, self._given = keyword, tokenizer
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

    def part(self, name: str) -> TextSet:
        """The items of one part."""
        if name not in self._sets:
            self._sets[name] = self._set(name)
        return self._sets[name]

    @property
    def facts(self) -> dict[str, Any]:
        return self._facts

    @property
    def left_out(self) -> dict[str, int]:
        """How many documents are missing, or were cut, by reason."""
        mark = "left_out."
        found = {key: n for key, n in self._tensors.items() if key.startswith(mark)}
        return {key.removeprefix(mark): int(n) for key, n in sorted(found.items())}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_json(tensor_text(self._tensors["tokenizer"]))

    # ---- parts --------------------------------------------------------------------------------
    @cached_property
    def _documents(self) -> Documents:
        return self.documents()

    @cached_property
    def _sets(self) -> dict[str, TextSet]:
        return {}

    def _set(self, name: str) -> TextSet:
        rows = self._tensors[f"{name}.rows"].tolist()
        sizes = self._tensors[f"{name}.sizes"].tolist()
        tokens = torch.split(self._tensors[f"{name}.tokens"], sizes)
        columns = {
            key: [column[row] for row in rows] for key, column in self._documents.columns.items()
        }
        if self.keyword:
            texts = (self._documents.texts[row] for row in rows)
            columns["keyword"] = [has(self.keyword, text) for text in texts]
        return TextSet(tokens, self.tokenizer, columns)

    @cached_property
    def _facts(self) -> dict[str, Any]:
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
        mark = "left_out."
        counts = {k.removeprefix(mark): int(n) for k, n in tensors.items() if k.startswith(mark)}
        if counts:
            total = sum(len(tensors[f"{part}.rows"]) for part in PARTS)
            print(f"{self.name}: {total} texts are used; {self._reasons(counts)}", file=sys.stderr)
        return tensors

    def _reasons(self, counts: Mapping[str, int]) -> str:
        words = "; ".join(f"{n} {REASONS[reason]}" for reason, n in sorted(counts.items()))
        return words.replace("LONGEST", str(self.longest))

    def _tokenized(self) -> dict[str, Tensor]:
        documents = self._documents
        parts, tokenizer = self._split()
        encoder = Encoder(tokenizer, self.longest, self.truncate)
        tensors = {"tokenizer": text_tensor(tokenizer.to_json())}
        with bar(f"tokenizing {self.name}", len(documents)) as advance:
            for part, rows in parts.items():
                found = encoder(part, rows, documents.texts, advance)
                tensors |= {f"{part}.{key}": tensor for key, tensor in found.items()}
        counts = encoder.left_out + Counter(documents.left_out)
        for reason, count in counts.items():
            tensors[f"left_out.{reason}"] = torch.tensor([count])
        empty = [part for part, rows in parts.items() if rows and not len(tensors[f"{part}.rows"])]
        if empty:
            raise UserError(
                f"{self.name}: nothing is left of the part {empty[0]} ({self._reasons(counts)}): "
                "raise data.longest, cut texts there with data.truncate=true, or give more"
            )
        return tensors

    def _split(self) -> tuple[dict[str, list[int]], Tokenizer]:
        """The rows of each part, and the tokenizer that the training part taught, or that given."""
        texts = self._documents.texts
        if self._given:
            whole = {**dict.fromkeys(PARTS, list[int]()), "train": list(range(len(texts)))}
            return whole, Tokenizer.from_json(self._given)
        parts = split(texts, self.name)
        learned = [texts[row] for row in parts["train"]]
        symbols = self.kind == "smiles"
        tokenizer = Symbols.train(learned) if symbols else BytePairs.train(learned, self.vocabulary)
        return parts, tokenizer


class Encoder:
    """Documents to tokens, one part after another; `left_out` counts by reason.

    Texts that are equal once they are cut stay in the part in which they were first.
    """

    def __init__(self, tokenizer: Tokenizer, longest: int, truncate: bool) -> None:
        self.tokenizer, self.longest, self.truncate = tokenizer, longest, truncate
        self.left_out: Counter[str] = Counter()
        self._part_of: dict[tuple[int, ...], str] = {}

    def __call__(
        self, part: str, rows: Sequence[int], texts: Sequence[str], advance: Callable[[], None]
    ) -> dict[str, Tensor]:
        """`rows` (M,) that are used, `sizes` (M,), and `tokens`, one text after another."""
        kept, sizes = list[int](), list[int]()
        flat = list[int]()
        for row in rows:
            tokens = self._tokens(texts[row], part)
            if tokens is not None:
                kept.append(row)
                sizes.append(len(tokens))
                flat += tokens
            advance()
        return {
            "rows": torch.tensor(kept, dtype=torch.int32),
            "sizes": torch.tensor(sizes, dtype=torch.int32),
            "tokens": torch.tensor(flat, dtype=torch.int32),
        }

    def _tokens(self, text: str, part: str) -> list[int] | None:
        """The tokens of a text, None where it is left out."""
        try:
            tokens = self.tokenizer.encode(text)
        except UserError:
            self.left_out["unknown_symbol"] += 1
            return None
        if len(tokens) > self.longest:
            self.left_out["cut" if self.truncate else "too_long"] += 1
            if not self.truncate:
                return None
            tokens = tokens[: self.longest]
        if self._part_of.setdefault(tuple(tokens), part) != part:
            self.left_out["copy"] += 1
            return None
        return tokens
