"""Classes that follow from a text itself, so that whether a sample has them is exact."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anylatent.modalities.text import chemistry

KEYWORD: Sequence[str] = ("no", "yes")


def has(keyword: str, text: str) -> int:
    """1 where the word is in the text as a whole, in capitals or not, else 0."""
    pattern = rf"(?<!\w){re.escape(keyword)}(?!\w)"
    return int(re.search(pattern, text, re.IGNORECASE) is not None)


def computed(column: str, facts: Mapping[str, Any]) -> Callable[[str], int] | None:
    """Text → index of its class in a column, -1 where it has none; None for what must be judged.

    `facts` are those of the data: the column "keyword" looks for the fact of that name, and the
    columns of SMILES are chemistry's.
    """
    if column == "keyword" and facts.get("keyword"):
        return lambda text: has(facts["keyword"], text)
    if column in chemistry.CLASSES and facts["kind"] == "smiles":
        return lambda text: (chemistry.attributes(text) or {column: -1})[column]
    return None
