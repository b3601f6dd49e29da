"""Documents before they are tokens: texts and their columns, and the split that leaks nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from anylatent.modalities.shared.splits import Share, by_shares
from anylatent.modalities.shared.strings import Lines, lines_tensor, tensor_lines

Column: TypeAlias = Sequence[int] | Sequence[float] | Sequence[str]

_SHARES = {"held_out": Share(0.1, most=5_000), "judged_by": Share(0.2)}
PARTS = (*_SHARES, "train")


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
        texts = self.texts if isinstance(self.texts, Lines) else Lines.of(self.texts)
        tensors = {"texts": texts.tensor}
        for name, column in self.columns.items():
            if column and isinstance(column[0], str):
                tensors[f"strings.{name}"] = lines_tensor([str(entry) for entry in column])
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
                columns[name] = tensor_lines(tensor)
            elif kind == "numbers":
                columns[name] = tensor.tolist()
            elif kind == "left_out":
                left_out[name] = int(tensor)
        return cls(Lines(tensors["texts"]), columns, left_out)


def whole(texts: Sequence[str]) -> dict[str, Sequence[int]]:
    """All texts to train, in their order."""
    return {**dict.fromkeys(PARTS, range(0)), "train": range(len(texts))}


def split(texts: Sequence[str], what: str) -> dict[str, Sequence[int]]:
    """Rows by part: a tenth held out, at most 5,000 texts; a fifth to judge by; the rest to train.

    Copies of a text stay together; see `by_shares`. Each part has at least one text. Raises
    UserError for fewer than three different ones.
    """
    return by_shares(texts, _SHARES, "train", what, "texts")
