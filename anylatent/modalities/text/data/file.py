"""Any text: a file, or a folder of files, each line of which is a document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from anylatent.core.support.files import UserError
from anylatent.modalities.shared.folder import Files
from anylatent.modalities.shared.strings import Lines
from anylatent.modalities.text.data.base import TextData
from anylatent.modalities.text.data.documents import Documents

_SUFFIXES = (".txt",)
_MADE_BY = {"made by": ["1"]}
_BOM = b"\xef\xbb\xbf"


class TextFile(TextData):
    """The lines of the .txt file `path`, or of those in the folder `path` at any depth.

    Each line in UTF-8 is a document, without white space at its ends; empty ones do not count.
    Copies stay in one part. `tokenizer`, `vocabulary`, `longest`, `truncate` and `keyword`: see
    `TextData`. Raises UserError without a path, for a path that is missing or has no text, for
    bytes that are no UTF-8 (naming file and line), and for fewer than three different lines without
    a `tokenizer`.
    """

    def __init__(
        self,
        tokenizer: str = "",
        *,
        path: str = "",
        vocabulary: int = 4096,
        longest: int = 64,
        truncate: bool = False,
        keyword: str = "",
    ) -> None:
        self.files = Files(
            path,
            _SUFFIXES,
            purpose="the data set 'text_file'",
            wanted="a .txt file with a document on each line, or a folder of such files",
            what="text",
            single=True,
        )
        source = {"files": self.files.stamps, "root": self.files.place, **_MADE_BY}
        super().__init__(source, vocabulary, longest, truncate, keyword, tokenizer)

    @property
    def name(self) -> str:
        return str(self.files.root)

    def documents(self) -> Documents:
        read = self.files.read("text_file", _MADE_BY, lambda: self._read().compact())
        return Documents.of_cache(read)

    def _read(self) -> Documents:
        texts = Lines.of(line for path in self.files.paths for line in lines(path))
        if not len(texts):
            raise UserError(
                f"{self.files.root} has no text: a document is wanted on each line"
                + (f"; {len(self.files.paths)} files were read" if self.files.root.is_dir() else "")
            )
        return Documents(texts)


def lines(path: Path) -> Iterator[str]:
    """The lines of a file that are not empty. Raises UserError, naming the line, for no UTF-8."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                text = _decoded(line.removeprefix(_BOM) if number == 1 else line, path, number)
                if text:
                    yield text
    except OSError as error:
        raise UserError(f"{path} can't be read: {error}") from error


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {number}: byte {error.object[error.start]:#04x} at place "
            f"{error.start + 1} is no UTF-8; convert the file, for instance with iconv"
        ) from error
