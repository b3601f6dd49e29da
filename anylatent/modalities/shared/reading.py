"""The one way in which text is read from files: line by line, and nothing replaced in silence.

UTF-8 with or without a mark at its beginning, UTF-16 and UTF-32 with one, and any other encoding
that is asked for. A line that is no text in it is told with the reason, and its neighbours are read
as ever.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias

from anylatent.core.support.files import UserError

Line: TypeAlias = tuple[str | None, str]
"""The text without its line break, None where it is none; and why it is none."""

_MARKS = (  # the longer ones first
    (codecs.BOM_UTF32_LE, "utf-32-le", 4),
    (codecs.BOM_UTF32_BE, "utf-32-be", 4),
    (codecs.BOM_UTF8, "utf-8", 1),
    (codecs.BOM_UTF16_LE, "utf-16-le", 2),
    (codecs.BOM_UTF16_BE, "utf-16-be", 2),
)
_WIDTHS = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}
_PIECE = 2**20
_BREAK = re.compile(rb"\r\n?|\n")


@dataclass
class Text:
    """The lines of a text, "" where one is none, and by its number from 1 what is wrong with it."""

    lines: list[str] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)

    def problems(self, name: str) -> list[str]:
        """What to tell of the lines that are left out."""
        return [f"{name}, line {number}: {reason}" for number, reason in self.bad.items()]


def check_encoding(encoding: str) -> None:
    """Raises UserError for the name of no encoding of text; "" is UTF-8, or what a mark says."""
    try:
        if encoding:
            "a".encode(encoding)
    except (LookupError, ValueError) as error:
        raise UserError(
            f"encoding={encoding}: Python knows no such encoding of text; common ones are utf-8, "
            "utf-16, latin-1, cp1252, cp1251, gb18030, shift_jis"
        ) from error


def read_text(path: Path, encoding: str = "") -> Text:
    """All lines of a file; see `lines_of`."""
    text = Text()
    for number, (line, reason) in enumerate(lines_of(path, encoding), 1):
        text.lines.append(line or "")
        if line is None:
            text.bad[number] = reason
    return text


def lines_of(path: Path, encoding: str = "") -> Iterator[Line]:
    """The lines of a file one by one, in a few bytes of memory; a mark counts before `encoding`.

    Raises OSError where the file can't be read.
    """
    for text, reason in shown_lines(path, encoding):
        yield (None if reason else text), reason


def shown_lines(path: Path, encoding: str = "") -> Iterator[tuple[str, str]]:
    """As `lines_of`, but that a line which is no text is there, with a sign in place of what is
    none: for files whose other lines say where they stand, and for fixed columns."""
    with open(path, "rb") as file:
        kind, width, skip = _kind(file.read(4), encoding)
        file.seek(skip)
        for raw in _plain(file) if width == 1 else _wide(file, width, kind):
            yield from _decoded(raw, kind, width)


def _kind(head: bytes, encoding: str) -> tuple[str, int, int]:
    """The encoding of a file that begins so, the bytes of a unit, and those of the mark."""
    for mark, name, width in _MARKS:
        if head.startswith(mark):
            return name, width, len(mark)
    name = codecs.lookup(encoding or "utf-8").name
    name = f"{name}-le" if name in ("utf-16", "utf-32") else name
    return name, _WIDTHS.get(name, 1), 0


def _plain(file: BinaryIO) -> Iterator[bytes]:
    for raw in file:
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if b"\r" in line:
            yield from _BREAK.split(line)
        else:
            yield line


def _wide(file: BinaryIO, width: int, kind: str) -> Iterator[bytes]:
    """Lines of units of several bytes: a line break is one only where a unit begins."""
    end, rest, searched = "\n".encode(kind), b"", 0
    while piece := file.read(_PIECE):
        rest, start = rest + piece, 0
        while (found := rest.find(end, searched)) >= 0:
            searched = found + 1
            if (found - start) % width == 0:
                yield rest[start:found]
                start = searched = found + width
        rest, searched = rest[start:], max(0, len(rest) - start - width)
    if rest:
        yield rest


def _decoded(raw: bytes, kind: str, width: int) -> Iterator[tuple[str, str]]:
    try:
        text = raw.decode(kind)
    except UnicodeDecodeError as error:
        byte, place = error.object[error.start], error.start + 1
        yield raw.decode(kind, "replace"), f"byte {byte:#04x} at place {place} is no {_name(kind)}"
        return
    except UnicodeError as error:
        yield raw.decode(kind, "replace"), f"it is no {_name(kind)} ({error})"
        return
    if "\0" in text:
        yield text, "it has zero bytes, as binary files do, and UTF-16 without a mark"
    elif width == 1:
        yield text, ""
    else:
        yield from ((line, "") for line in text.removesuffix("\r").split("\r"))


def _name(kind: str) -> str:
    return kind.upper().removesuffix("-LE").removesuffix("-BE")
