"""The text of CIF (Hall, Allen and Brown 1991; version 1.1): data blocks of categories.

Items are `_category.item value`, or a loop_ of names and then their values row by row. A value is
a word, text in quotes, or lines between semicolons; `.` and `?` stand for none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from anylatent.modalities.molecule.files.records import BadRecord, Lines, short

_WORD = re.compile(r"""(?:'.*?'(?=\s|$)|".*?"(?=\s|$)|[^\s]+)""")
Token = tuple[str, bool]
"""Text, and whether it was quoted, so that it is a value whatever it says."""


def blocks(lines: Lines) -> list[tuple[str, dict[str, dict[str, list[str]]]]]:
    """The data blocks of a file, by name; raises BadRecord for text that is none.

    Names without a dot (`_atom_site_label`, of the small molecules' dictionary) are categories of
    their own.
    """
    found: list[tuple[str, dict[str, dict[str, list[str]]]]] = []
    tokens = list(_tokens(lines))
    place = 0
    while place < len(tokens):
        text, quoted = tokens[place]
        word = "" if quoted else text.lower()
        if word.startswith("data_"):
            found.append((text[5:], {}))
            place += 1
        elif word.startswith("save_") and found:
            place += 1
        elif not found:
            raise BadRecord(f"'{short(text)}' before any data_: no CIF file")
        elif word == "loop_":
            place = _loop(tokens, place + 1, found[-1][1])
        elif word.startswith("_"):
            if place + 1 == len(tokens) or not _is_value(tokens[place + 1]):
                raise BadRecord(f"'{short(text)}' has no value: cut short?")
            _put(found[-1][1], text, [tokens[place + 1]])
            place += 2
        else:
            raise BadRecord(f"'{short(text)}' belongs to no name")
    return found


def _loop(tokens: list[Token], place: int, block: dict[str, dict[str, list[str]]]) -> int:
    """Reads a loop into the block; returns where it ends."""
    start = place
    while place < len(tokens) and tokens[place][0].startswith("_") and not tokens[place][1]:
        place += 1
    names = [text for text, _ in tokens[start:place]]
    start = place
    while place < len(tokens) and _is_value(tokens[place]):
        place += 1
    values = tokens[start:place]
    if not names or len(values) % len(names):
        label = short(names[0]) if names else "loop_"
        raise BadRecord(f"{len(values)} values in {len(names)} columns from {label}: cut short?")
    for column, name in enumerate(names):
        _put(block, name, values[column :: len(names)])
    return place


def _put(block: dict[str, dict[str, list[str]]], name: str, values: list[Token]) -> None:
    category, _, item = name[1:].partition(".")
    columns = block.setdefault(category, {})
    if item in columns:
        raise BadRecord(f"'{short(name)}' is there twice")
    columns[item] = ["" if text in (".", "?") and not quoted else text for text, quoted in values]


def _is_value(token: Token) -> bool:
    text, quoted = token
    return quoted or not (
        text.startswith("_") or text.lower().startswith(("data_", "save_", "loop_"))
    )


def _tokens(lines: Lines) -> Iterator[Token]:
    block: list[str] | None = None
    for line in lines:
        if line.startswith(";"):
            if block is None:
                block = [line[1:]]
                continue
            yield "\n".join(block), True
            block, line = None, line[1:]
        if block is not None:
            block.append(line)
            continue
        yield from _words(line)
    if block is not None:
        raise BadRecord("text between semicolons does not end: cut short?")


def _words(line: str) -> Iterator[Token]:
    for match in _WORD.finditer(line):
        text = match[0]
        if text.startswith("#"):
            return
        quoted = len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
        yield (text[1:-1] if quoted else text), quoted
