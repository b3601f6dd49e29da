"""Numbers as a user typed them.

Where a text or a number may be meant, as in `cond.NAME=...`, what was typed is a number to whoever
wants numbers, and the text that was typed to whoever wants texts: only the reader knows which.
"""

from __future__ import annotations

from typing import Any


class _TypedInt(int):
    text: str


class _TypedFloat(float):
    text: str


def typed_number(text: str) -> int | float:
    """The number that a text says, which remembers how it was typed."""
    number = _TypedFloat(text) if "." in text else _TypedInt(text)
    number.text = text
    return number


def as_typed(value: Any) -> Any:
    """The text as a user typed it, where a value is a number that was typed; else the value."""
    return value.text if isinstance(value, _TypedInt | _TypedFloat) else value
