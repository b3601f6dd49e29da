"""Any text: a file, or a folder of files, each line of which is a document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from anylatent.core.support.disk_cache import cached
from anylatent.core.support.files import UserError, stamp, visible_files
from anylatent.modalities.text.data.base import TextData
from anylatent.modalities.text.data.documents import Documents

_SUFFIXES = (".txt",)
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
        if not path:
            raise UserError(
                "the data set 'text_file' needs data.path=..., a .txt file with a document on each "
                "line, or a folder of such files"
            )
        self.root = Path(path).expanduser()
        self.paths = _find(self.root)
        base = self.root if self.root.is_dir() else self.root.parent
        stamps = [[str(file.relative_to(base)), *stamp(file)] for file in self.paths]
        self._source = {"files": stamps, "root": str(self.root.resolve()), "made by": ["1"]}
        super().__init__(self._source, vocabulary, longest, truncate, keyword, tokenizer)

    @property
    def name(self) -> str:
        return str(self.root)

    def documents(self) -> Documents:
        return Documents.of_cache(cached("text_file", self._source, lambda: self._read().compact()))

    def _read(self) -> Documents:
        texts = [line for path in self.paths for line in lines(path)]
        if not texts:
            raise UserError(
                f"{self.root} has no text: a document is wanted on each line"
                + (f"; {len(self.paths)} files were read" if self.root.is_dir() else "")
            )
        return Documents(texts)


def lines(path: Path) -> Iterator[str]:
    """The lines of a file that are not empty. Raises UserError, naming the line, for no UTF-8."""
    try:
        content = path.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error}") from error
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, line {number}: byte {error.object[error.start]:#04x} at place "
                f"{error.start + 1} is no UTF-8; convert the file, for instance with iconv"
            ) from error
        if text:
            yield text


def _find(root: Path) -> list[Path]:
    if not root.exists():
        raise UserError(f"there is no file or folder {str(root)!r} to read text from")
    if root.is_file():
        return [root]
    found = visible_files(root, _SUFFIXES)
    if not found:
        raise UserError(f"no text in {str(root)!r} or below it: looked for *.txt, not hidden")
    return found
