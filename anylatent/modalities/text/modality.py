"""Texts: padded batches of tokens, their lengths, and templates that they fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from anylatent.core.modality import Batch, Item, Modality
from anylatent.modalities.text.batches import collate
from anylatent.modalities.text.data_space import OneHot
from anylatent.modalities.text.given import Templates
from anylatent.modalities.text.sizes import Lengths
from anylatent.modalities.text.texts import Texts
from anylatent.modalities.text.tokenizer import Tokenizer


class TextModality(Modality):
    """Texts of `vocabulary` tokens, of the lengths and by the tokenizer of the data's facts.

    A batch has `tokens` (B, L) int64, 0 at padding, `mask` (B, L), `length` (B,) and the columns of
    the data. Outputs are `Texts`. In data space a text is the latent z (L, V), the one-hot vectors
    of its tokens, whose normalised values have deviation `onehot_std`.

    Conditions that need no conditioner: `length`, a number of tokens (`Lengths`); `template`, a
    text with gaps (`Templates`).
    """

    encoding: tuple[str, ...] = ("vocabulary", "tokenizer")
    sizes: Lengths
    data_space: OneHot
    given: Templates

    def __init__(
        self,
        vocabulary: int | None = None,
        tokenizer: str = "",
        lengths: Sequence[Sequence[int]] = (),
        shortest: int | None = None,
        longest: int | None = None,
        kind: str = "text",
        *,
        onehot_std: float = 1.0,
    ) -> None:
        self.tokenizer = Tokenizer.from_json(tokenizer) if tokenizer else None
        self.kind = kind
        self.given = Templates(self.tokenizer)
        self.sizes = Lengths(lengths, shortest, longest, self.given)
        self.data_space = OneHot(vocabulary, self.tokenizer, kind, onehot_std)

    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """Tokens padded with 0 to the longest; floats become float32, strings lists."""
        return collate(items)

    def unit(self, batch: Batch) -> tuple[str, Tensor]:
        return "token", batch["mask"].sum(1)

    def originals(self, batch: Batch) -> Texts:
        return Texts.unpack(batch["tokens"], batch["mask"], self.tokenizer, self.kind)
