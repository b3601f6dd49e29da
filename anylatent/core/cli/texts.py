"""What a user types for a text, a path or a condition, which stays as it was typed.

The rule, for every key that is declared as one of these:

    red, green & "blue"    the text, whatever signs are in it: ${...} too is text
    '[a, b]'               quotes around the whole are taken off where the text without them could
                           be something else: a list, {...}, a number, true, false, null, quoted
    null                   nothing, where a key may have nothing; ??? is Hydra's "not given",
                           but for a condition, of which it is a text
    [a, 'b, c']            a list, where a key takes several

Hydra, whose grammar has other signs for nearly all of that, never sees such a text: it composes a
word in its place, and the text is put back into what was composed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from anylatent.core.support.typed import typed_number

_WORD = "__typed_{}__"
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]*)?")
_MEANT = re.compile(rf"[\[{{'\"].*|{_NUMBER.pattern}|true|false|null|\?\?\?", re.DOTALL)
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_PAIRS = {"[": "]", "{": "}", "(": ")"}


class Kind(Enum):
    """What a key takes, as far as texts go."""

    TEXT = "a text"
    OPTIONAL = "a text, or nothing"
    TEXTS = "a list of texts"
    CONDITION = "a text, a number or nothing, or a list of them"


def reading(value: str, kind: Kind, hydras: bool = False) -> Any:
    """What is meant by a value that was typed for a key of this kind. Behind `hydras` own signs, as
    in `++key="a text"`, quotes are hers too: they are no part of any text."""
    items = listed(value) if kind in (Kind.TEXTS, Kind.CONDITION) else None
    if items is not None:
        return [reading(item, kind) for item in items]
    if value == "null" and kind in (Kind.OPTIONAL, Kind.CONDITION):
        return None
    if kind is Kind.CONDITION and _NUMBER.fullmatch(value):
        return typed_number(value)
    inner = unquoted(value)
    return inner if inner is not None and (hydras or _MEANT.fullmatch(inner)) else value


def unquoted(value: str) -> str | None:
    """The text within the quotes around a whole value, None where there are none."""
    if not _QUOTED.fullmatch(value):
        return None
    return re.sub(rf"\\([\\{value[0]}])", r"\1", value[1:-1])


def listed(value: str) -> list[str] | None:
    """The entries of `[a, b]` as they were typed, None for what is no list as a whole.

    Commas within quotes or brackets do not part; an entry in quotes is what is within them.
    """
    if not (value.startswith("[") and value.endswith("]")):
        return None
    inner = value[1:-1]
    pieces = _parted(inner)
    if pieces is None:
        return None
    if not inner.strip():
        return []
    return [_entry(piece.strip()) for piece in pieces]


def _entry(piece: str) -> str:
    """Of an entry that is quoted, the text, in quotes of ours only where that needs them."""
    inner = unquoted(piece)
    return piece if inner is None or _MEANT.fullmatch(inner) else inner


def _parted(text: str) -> list[str] | None:
    """Pieces between the commas that are in no quotes and no brackets; None where a bracket is
    closed that was not opened, or the other way round."""
    pieces, open_ones, start, place = list[str](), list[str](), 0, 0
    while place < len(text):
        sign = text[place]
        begins = not text[start:place].strip() or bool(open_ones)
        quote = _QUOTED.match(text, place) if sign in "'\"" and begins else None
        if quote is not None:
            place = quote.end()
            continue
        if sign in _PAIRS:
            open_ones.append(_PAIRS[sign])
        elif sign in _PAIRS.values():
            if not open_ones or open_ones.pop() != sign:
                return None
        elif sign == "," and not open_ones:
            pieces.append(text[start:place])
            start = place + 1
        place += 1
    return None if open_ones else [*pieces, text[start:]]


class Words:
    """Texts behind words that Hydra takes for plain ones."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def word(self, value: Any) -> str:
        """A new word for a value."""
        word = _WORD.format(len(self._kept))
        self._kept[word] = value
        return word

    def hidden(self, value: Any) -> Any:
        """Plain values in which no text can be taken for a reference to another one."""
        return _mapped(value, lambda text: self.word(text) if "${" in text else text)

    def restored(self, value: Any) -> Any:
        """Plain values, and names in them, with the texts in place of the words."""
        return _mapped(value, lambda text: self._kept.get(text, text))


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_mapped(inner, change) for inner in value]
    return value
