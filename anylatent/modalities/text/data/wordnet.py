"""WordNet 3.0 (Princeton University) from the Debian package `wordnet-base`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from anylatent.core.support.disk_cache import cached
from anylatent.core.support.file_digests import file_digests
from anylatent.core.support.files import UserError, place_of
from anylatent.modalities.text.data.base import TextData
from anylatent.modalities.text.data.documents import Documents

_FILES = {"noun": "data.noun", "verb": "data.verb", "adjective": "data.adj", "adverb": "data.adv"}
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective may stand


class WordNet(TextData):
    """117,659 definitions: "word: what it means", of the first word of each set of synonyms.

    Class `part_of_speech`: noun, verb, adjective, adverb. Examples of use are left out. `path` is
    the folder with data.noun, data.verb, data.adj and data.adv. `vocabulary`, `longest`,
    `truncate` and `keyword`: see `TextData`. Raises UserError where a file is missing, or is none
    of WordNet's.
    """

    classes: Mapping[str, Sequence[str]] = {"part_of_speech": tuple(_FILES)}

    def __init__(
        self,
        *,
        path: str = "/usr/share/wordnet",
        vocabulary: int = 4096,
        longest: int = 64,
        truncate: bool = False,
        keyword: str = "",
    ) -> None:
        self.paths = [place_of(path) / name for name in _FILES.values()]
        missing = [str(file) for file in self.paths if not file.is_file()]
        if missing:
            raise UserError(
                f"the data set 'wordnet' needs {', '.join(missing)}: apt-get install wordnet-base, "
                "or give data.path=..., the folder with WordNet's files"
            )
        found = zip(self.paths, file_digests(place_of(path), self.paths), strict=True)
        files = [[file.name, content] for file, content in found]
        source = {"files": files, "made by": ["1"]}
        self._source = source
        super().__init__(source, vocabulary, longest, truncate, keyword)

    def documents(self) -> Documents:
        return Documents.of_cache(cached("wordnet", self._source, lambda: self._read().compact()))

    def _read(self) -> Documents:
        texts, kinds = list[str](), list[int]()
        for kind, path in enumerate(self.paths):
            for text in _definitions(path):
                texts.append(text)
                kinds.append(kind)
        return Documents(texts, {"part_of_speech": kinds})


def _definitions(path: Path) -> Iterator[str]:
    """Of each line `offset file type count word ... | gloss`; the licence's lines are indented."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no file of WordNet: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.startswith("  "):
            continue
        head, bar, gloss = line.partition(" | ")
        fields = head.split(" ")
        if not bar or len(fields) < 6 or not fields[0].isdecimal():
            raise UserError(f"{path}, line {number} is no definition of WordNet: {line[:60]!r}")
        word = _MARKER.sub("", fields[4]).replace("_", " ")
        yield f"{word}: {definition(gloss)}"


def definition(gloss: str) -> str:
    """A gloss without its examples, which are in quotation marks after a semicolon."""
    return re.split(r'[;:,]?\s*"', gloss.strip(), maxsplit=1)[0].strip() or gloss.strip()
