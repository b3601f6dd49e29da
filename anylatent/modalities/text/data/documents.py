"""Documents before they are tokens: texts and their columns, and the split that leaks nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from anylatent.core.support.files import UserError

Column: TypeAlias = Sequence[int] | Sequence[float] | Sequence[str]

PARTS = ("held_out", "judged_by", "train")
_SHARES = (0.1, 0.2)
_MOST_HELD_OUT = 5_000


@dataclass(frozen=True, eq=False)
class Documents:
    """N texts without line breaks, `columns` of N numbers or strings, and what was `left_out`.

    Columns of class indices are ints, properties floats, strings strings. `left_out` counts by
    reason, such as "no molecule".
    """

    texts: Sequence[str]
    columns: Mapping[str, Column] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    # ---- caches -------------------------------------------------------------------------------
    def compact(self) -> dict[str, Tensor]:
        """Tensors for a cache, strings as lines of UTF-8."""
        tensors = {"texts": _lines(self.texts)}
        for name, column in self.columns.items():
            if column and isinstance(column[0], str):
                tensors[f"strings.{name}"] = _lines([str(entry) for entry in column])
            else:
                tensors[f"numbers.{name}"] = torch.tensor(column)
        for reason, count in self.left_out.items():
            tensors[f"left_out.{reason}"] = torch.tensor([count])
        return tensors

    @classmethod
    def of_cache(cls, tensors: Mapping[str, Tensor]) -> Documents:
        """What `compact` made tensors of."""
        columns: dict[str, Column] = {}
        left_out = {}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            if kind == "strings":
                columns[name] = _strings(tensor)
            elif kind == "numbers":
                columns[name] = tensor.tolist()
            elif kind == "left_out":
                left_out[name] = int(tensor)
        return cls(_strings(tensors["texts"]), columns, left_out)


def text_tensor(text: str) -> Tensor:
    """A text as bytes of UTF-8."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def tensor_text(tensor: Tensor) -> str:
    """The text of bytes."""
    return bytes(tensor.numpy()).decode()


def _lines(strings: Sequence[str]) -> Tensor:
    return text_tensor("".join(f"{string}\n" for string in strings))


def _strings(tensor: Tensor) -> list[str]:
    return tensor_text(tensor).split("\n")[:-1]


def split(texts: Sequence[str], what: str) -> dict[str, list[int]]:
    """Rows by part: a tenth held out, at most 5,000 texts; a fifth to judge by; the rest to train.

    Different texts are ordered by a hash and cut there, so that copies of a text stay together and
    neither platform nor order matters; rows come in the order of the hash, so that the first of a
    part are a fair choice. Each part has at least one text. Raises UserError for fewer than three
    different ones.
    """
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text, []).append(row)
    if len(rows) < len(PARTS):
        raise UserError(
            f"{what}: {len(texts)} texts, of which {len(rows)} different ones, are too few: at "
            "least three are needed, to learn from, to judge by and to hold out"
        )
    ordered = sorted(rows, key=lambda text: hashlib.sha256(text.encode()).digest())
    held_out, judged_by = (max(1, round(share * len(rows))) for share in _SHARES)
    held_out = min(held_out, _MOST_HELD_OUT)
    ends = (0, held_out, held_out + judged_by, len(rows))
    return {
        part: [row for text in ordered[ends[k] : ends[k + 1]] for row in rows[text]]
        for k, part in enumerate(PARTS)
    }
