"""Texts as they are saved, shown and judged: tokens without padding, and what they say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from anylatent.modalities.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Text:
    """`tokens` (n,) int64 on the CPU, and the `text` that they stand for."""

    tokens: Tensor
    text: str

    @classmethod
    def of(cls, tokens: Sequence[int], tokenizer: Tokenizer | None) -> Text:
        """The text of some tokens; without a tokenizer, the tokens themselves as numbers."""
        text = " ".join(map(str, tokens)) if tokenizer is None else tokenizer.decode(tokens)
        return cls(torch.tensor(list(tokens), dtype=torch.long), text)

    def __len__(self) -> int:
        return len(self.tokens)

    def __str__(self) -> str:
        return self.text


class Texts(Sequence[Text]):
    """Any number of texts of any lengths, on the CPU."""

    def __init__(self, texts: Iterable[Text] = ()) -> None:
        self._texts = list(texts)

    @classmethod
    def unpack(cls, tokens: Tensor, mask: Tensor, tokenizer: Tokenizer | None) -> Texts:
        """From a padded batch: tokens (B, L), mask (B, L); one wait for the device."""
        rows = torch.where(mask, tokens, -1).cpu().tolist()
        return cls(Text.of([token for token in row if token >= 0], tokenizer) for row in rows)

    def cpu(self) -> Texts:
        return self

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Text]:
        return iter(self._texts)

    @overload
    def __getitem__(self, index: int) -> Text: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> Text | Texts:
        found = self._texts[index]
        return Texts(found) if isinstance(found, list) else found

    def __add__(self, other: Texts) -> Texts:
        return Texts([*self, *other])

    @property
    def lengths(self) -> Tensor:
        """The number of tokens of each, (B,)."""
        return torch.tensor([len(text) for text in self], dtype=torch.long)

    @property
    def strings(self) -> list[str]:
        return [text.text for text in self]
