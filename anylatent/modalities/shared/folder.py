"""A folder of files that a data set is read from: which they are, and what was left out.

The files below a path, hidden ones left out, are read in the order of their paths; their names and
digests of their contents are the key under which what was read of them is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from anylatent.core.support.disk_cache import cached
from anylatent.core.support.file_digests import file_digests
from anylatent.core.support.files import UserError, place_of
from anylatent.modalities.shared.report import Report
from anylatent.modalities.shared.walk import walk

DOCUMENTS = (
    *(".txt", ".caption", ".md", ".rst", ".htm", ".html", ".log", ".cff", ".bib", ".tex", ".pdf"),
    *(".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xml", ".yaml", ".yml", ".toml", ".ini"),
    *(".py", ".ipynb", ".sh", ".cfg", ".sha256", ".md5"),
)
"""Endings of what may lie beside data and is none."""

_BESIDE = ("readme", "license", "licence", "copying", "authors", "notice", "citation", "changelog")
_CLUTTER = ("thumbs.db", "desktop.ini", "makefile")
CLOSED = "cannot be read"
_OTHER = "of another kind"


@dataclass(frozen=True)
class Kinds:
    """Which files are wanted: those that end in `suffixes`, and those that `opens` says yes to.

    `beside` are endings of files that nobody would expect to be read.
    """

    suffixes: Sequence[str]
    beside: Sequence[str] = ()
    opens: Callable[[Path], bool] | None = None

    def wants(self, path: Path) -> bool:
        if path.suffix.lower() in self.suffixes:
            return True
        return self.opens is not None and not self.expects(path) and self.opens(path)

    def expects(self, path: Path) -> bool:
        """Whether a file that isn't wanted may lie there without a word."""
        name = path.name.lower()
        known = name in _CLUTTER or name.split(".")[0] in _BESIDE
        return known or path.suffix.lower() in self.beside


class Files:
    """The files of some kinds below the folder `path`, or `path` itself where `single`.

    `purpose` ("the data set 'folder'"), `wanted` ("a folder of pictures") and `what` ("pictures")
    are for messages. `report` says what became of everything else, and `others` are the files that
    may lie there without a word. Raises UserError without a path, for one that does not exist or
    is no folder, and where there is no such file.
    """

    def __init__(
        self,
        path: str,
        kinds: Kinds | Sequence[str],
        *,
        purpose: str,
        wanted: str,
        what: str,
        single: bool = False,
    ) -> None:
        if not path:
            raise UserError(f"{purpose} needs data.path=..., {wanted}")
        self.root = place_of(path)
        self.report = Report(self.root, what)
        self.others: list[Path] = []
        self.paths = self._find(kinds if isinstance(kinds, Kinds) else Kinds(kinds), single)
        base = self.root if self.root.is_dir() else self.root.parent
        self.names = [file.relative_to(base) for file in self.paths]
        found = zip(self.names, file_digests(self.root, self.paths), strict=True)
        self.stamps = [[str(name), content] for name, content in found]

    @property
    def place(self) -> str:
        """The absolute path of the folder or file."""
        return str(self.root.resolve())

    def read(
        self, name: str, made_by: Mapping[str, object], build: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What `build` reads of the files, kept on disk as `name` until one of them changes.

        `made_by` is all else that determines it, as plain values.
        """
        return cached(name, {"files": self.stamps, "root": self.place, **made_by}, build)

    # ---- which they are -----------------------------------------------------------------------
    def _find(self, kinds: Kinds, single: bool) -> list[Path]:
        root, what = self.root, self.report.what
        if not root.exists():
            wanted = "file or folder" if single else "folder"
            raise UserError(f"there is no {wanted} {str(root)!r} to read {what} from")
        if not root.is_dir():
            if single:
                self.report.used = 1
                return [root]
            raise UserError(f"{str(root)!r} is a file: give the folder that it is in")
        found = [path for path in walk(root, self.report) if self._takes(path, kinds)]
        self.report.used = len(found)
        if not found:
            message = f"no {what} in {str(root)!r} or below it: looked for "
            left = f". {self.report.summary}" if self.report.left_out else ""
            raise UserError(message + " ".join(kinds.suffixes) + left)
        return found

    def _takes(self, path: Path, kinds: Kinds) -> bool:
        """Whether a file is wanted and may be read; counts it, or says why not."""
        name = path.relative_to(self.root)
        if kinds.wants(path):
            if os.access(path, os.R_OK):
                return True
            self.report.leave(CLOSED, name, "permission denied")
        elif kinds.expects(path):
            self.others.append(path)
            self.report.ignore("documents", name)
        else:
            self.report.leave(_OTHER, name)
        return False
