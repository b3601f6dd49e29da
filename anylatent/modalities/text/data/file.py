"""Any text: a file, or a folder of files, each line of which is a document."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from torch import Tensor

from anylatent.core.support.files import UserError
from anylatent.modalities.shared.folder import CLOSED, Files, Kinds
from anylatent.modalities.shared.layout import note_split
from anylatent.modalities.shared.reading import check_encoding, lines_of
from anylatent.modalities.shared.report import Report, reason_of, shown
from anylatent.modalities.shared.strings import Lines, lines_tensor, listed, tensor_lines
from anylatent.modalities.text.data.base import TextData
from anylatent.modalities.text.data.documents import Documents

_SUFFIXES = (".txt",)
_MARKED_UP = (".jsonl", ".json", ".csv", ".tsv", ".xml", ".htm", ".html")
_AS_IT_STANDS = "a document is each line as it stands, with all that is no text; give plain text"
_NO_TEXT = "lines that are no text"
_FEWEST = 3  # different texts, one for each part


class TextFile(TextData):
    """The lines of the .txt file `path`, or of those in the folder `path` at any depth.

    Each line is a document, without white space at its ends; empty ones do not count. They are in
    UTF-8, in UTF-16 with a mark, or in `encoding`; a line that is no text in it is left out.
    Copies stay in one part. `tokenizer`, `vocabulary`, `longest`, `truncate` and `keyword`: see
    `TextData`.

    What is not used, and why, is in `report`; one warning counts and names it. Raises UserError
    without a path, for a path that is missing or has no text, and for fewer than three different
    lines without a `tokenizer`.
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
        encoding: str = "",
    ) -> None:
        check_encoding(encoding)
        self.files = Files(
            path,
            Kinds(_SUFFIXES),
            purpose="the data set 'text_file'",
            wanted="a .txt file with a document on each line, or a folder of such files",
            what="text",
            single=True,
        )
        note_split(self.files.names, self.files.report)
        for name in self.files.names:
            if name.suffix.lower() in _MARKED_UP:  # by its own path: folders are read for text
                self.files.report.note(_AS_IT_STANDS, name)
        self._made_by = {"made by": ["2"], "encoding": encoding}
        self._encoding, self._learns = encoding, not tokenizer
        source = {"files": self.files.stamps, "root": self.files.place, **self._made_by}
        super().__init__(source, vocabulary, longest, truncate, keyword, tokenizer)

    @property
    def name(self) -> str:
        return str(self.files.root)

    @cached_property
    def report(self) -> Report:
        """What became of the files and their lines."""
        report, tensors = self.files.report.extended(), self._tensors_of_lines
        for line in tensor_lines(tensors["bad"]):
            report.note(_NO_TEXT, line)
        for line in tensor_lines(tensors["unread"]):
            report.leave(CLOSED, line)
            report.used -= 1
        return report

    def documents(self) -> Documents:
        documents = Documents.of_cache(self._tensors_of_lines)
        self._check(documents)
        self.report.tell()
        return documents

    def _check(self, documents: Documents) -> None:
        """Raises UserError where nothing is left, or too little because of lines that are none."""
        bad = self.report.noted.get(_NO_TEXT, [])
        if documents.texts and not (bad and self._learns and len(set(documents.texts)) < _FEWEST):
            return
        if not bad and not self.report.left_out:
            read = f"; {len(self.files.paths)} files were read" if self.files.root.is_dir() else ""
            raise UserError(
                f"{self.files.root} has no text: a document is wanted on each line{read}"
            )
        raise UserError(
            f"{self.files.root} has {len(documents.texts)} lines of text and {len(bad)} that are "
            f"none: {listed(bad or self.report.entries, 3)}. Convert it, for instance with iconv, "
            "or say what it is in: data.encoding=latin-1, cp1252, utf-16, ..."
        )

    @cached_property
    def _tensors_of_lines(self) -> dict[str, Tensor]:
        return self.files.read("text_file", self._made_by, self._read)

    def _read(self) -> dict[str, Tensor]:
        bad, unread = list[str](), list[str]()
        texts = Lines.of(self._every(bad, unread))
        told = {"bad": lines_tensor(bad), "unread": lines_tensor(unread)}
        return {**Documents(texts).compact(), **told}

    def _every(self, bad: list[str], unread: list[str]) -> Iterator[str]:
        """The texts of all files, one after another; what is none is added to the others."""
        for path, name in zip(self.files.paths, self.files.names, strict=True):
            try:
                yield from _texts(path, shown(name), self._encoding, bad)
            except OSError as error:
                unread.append(f"{shown(name)}: {reason_of(error)}")


def _texts(path: Path, name: str, encoding: str, bad: list[str]) -> Iterator[str]:
    """The lines of a file that are not empty; those that are no text are added to `bad`."""
    for number, (line, reason) in enumerate(lines_of(path, encoding), 1):
        if line is None:
            bad.append(f"{name}, line {number}: {reason}")
        elif text := line.strip():
            yield text
