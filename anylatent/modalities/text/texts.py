"""Texts as they are saved, shown and judged: tokens without padding, and what they say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

from anylatent.core.support.files import save_text
from anylatent.modalities.text.tokenizer import Tokenizer, spelled

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Text:
    """`tokens` (n,) int64, and the `text` that they stand for."""

    tokens: Tensor
    text: str

    @classmethod
    def of(cls, tokens: Sequence[int], tokenizer: Tokenizer | None) -> Text:
        """The text of some tokens; without a tokenizer, the tokens themselves as numbers."""
        return cls(torch.tensor(list(tokens), dtype=torch.long), spelled(tokens, tokenizer))

    def __len__(self) -> int:
        return len(self.tokens)

    def __str__(self) -> str:
        return self.text


class Texts(Sequence[Text]):
    """Any number of texts of any lengths, outputs of the text modality; on the CPU unless moved.

    `tokenizer` is what spelled them, if known; `kind` what they are, "smiles" or other texts, by
    which they are shown.
    """

    def __init__(
        self, texts: Iterable[Text] = (), tokenizer: Tokenizer | None = None, kind: str = "text"
    ) -> None:
        self._texts, self.tokenizer, self.kind = list(texts), tokenizer, kind

    @classmethod
    def unpack(
        cls, tokens: Tensor, mask: Tensor, tokenizer: Tokenizer | None, kind: str = "text"
    ) -> Texts:
        """From a padded batch: tokens (B, L), mask (B, L); one wait for the device."""
        rows = torch.where(mask, tokens, -1).cpu().tolist()
        kept = ([token for token in row if token >= 0] for row in rows)
        return cls((Text.of(row, tokenizer) for row in kept), tokenizer, kind)

    # ---- a sequence ---------------------------------------------------------------------------
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
        return self.like(found) if isinstance(found, list) else found

    def __add__(self, other: Texts) -> Texts:
        return self.like([*self, *other])

    def like(self, texts: Iterable[Text]) -> Texts:
        """Other texts of the same kind and tokenizer."""
        return Texts(texts, self.tokenizer, self.kind)

    @property
    def lengths(self) -> Tensor:
        """The number of tokens of each, (B,)."""
        return torch.tensor([len(text) for text in self], dtype=torch.long)

    @property
    def strings(self) -> list[str]:
        return [text.text for text in self]

    # ---- outputs ------------------------------------------------------------------------------
    def to(self, device: torch.device | str) -> Texts:
        return self.like(Text(text.tokens.to(device), text.text) for text in self)

    @classmethod
    def join(cls, pieces: Sequence[Texts]) -> Texts:
        return pieces[0].like(text for piece in pieces for text in piece)

    def save(self, directory: Path, names: Sequence[str]) -> list[Path]:
        """NAME.txt of each; all as samples.jsonl, tokens included, and as lines of samples.txt.

        In samples.txt line breaks within a text are spaces.
        """
        folder = Path(directory)
        paths = [folder / f"{name}.txt" for name in names]
        for text, path in zip(self, paths, strict=True):
            save_text(path, f"{text.text}\n")
        rows = zip(names, self, strict=True)
        records = [{"name": n, "text": t.text, "tokens": t.tokens.tolist()} for n, t in rows]
        together = {
            "samples.jsonl": [json.dumps(record, ensure_ascii=False) for record in records],
            "samples.txt": [" ".join(text.splitlines()) for text in self.strings],
        }
        for name, lines in together.items():
            save_text(folder / name, "".join(f"{line}\n" for line in lines))
            paths.append(folder / name)
        return paths

    def show(self, columns: int | None = None, labels: Sequence[str] = ()) -> Image.Image:
        """A numbered page; for SMILES, drawings with the string below, red where it is invalid.

        On a page each label heads the `columns` texts that it belongs to.
        """
        from anylatent.modalities.text.picture import drawings, page

        return (drawings if self.kind == "smiles" else page)(self.strings, columns, labels)

    def beside(self, originals: Texts) -> Image.Image:
        """Each text above its reconstruction, with the tokens that differ in colour."""
        from anylatent.modalities.text.picture import comparison

        return comparison(originals, self, self.tokenizer)
