"""Words of a text, and a table of their tokens."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence

WORD = re.compile(r"[^\S\x1c-\x1f]*[\S\x1c-\x1f]+|[^\S\x1c-\x1f]+")
"""Words with the white space before them. GPT-2's splitter always parts where white space follows
something else, so that each of these has the tokens that it has alone. (U+001C to U+001F are white
space to Python only.)"""

REMEMBERED = 2**20
"""Characters of words whose tokens are kept."""


class Words(dict[str, int]):
    """The places of words in a table of their tokens, which has them when they are first asked for:
    those of word k are `tokens[ends[k] : ends[k + 1]]`."""

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        super().__init__()
        self._encode = encode
        self.forget()

    def make_room(self) -> None:
        """Forgets all words where there are too many of them."""
        if self.characters > REMEMBERED:
            self.forget()

    def forget(self) -> None:
        self.clear()
        self.tokens, self.ends, self.characters = array("i"), array("q", [0]), 0

    def __missing__(self, word: str) -> int:
        self.tokens.extend(self._encode(word))
        self.ends.append(len(self.tokens))
        self.characters += len(word)
        place = self[word] = len(self)
        return place
