"""The files below a folder, through links, each folder once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from anylatent.modalities.shared.report import Report, reason_of

_NOWHERE = "links that lead nowhere"
_AGAIN = "links to folders that are read anyway"
_CLOSED = "folders that can't be opened"


def walk(root: Path, report: Report) -> list[Path]:
    """The files below a folder, at any depth, sorted; what is hidden is left out.

    Links are followed. What can be reached in several ways is read once, below the folder that it
    is in rather than through a link, so that no circle of links is walked. What else there is
    (links that lead nowhere, pipes, folders that may not be opened) is told to the report.
    """
    return sorted(_Walk(root, report).files())


class _Walk:
    def __init__(self, root: Path, report: Report) -> None:
        self.root, self.report = root, report
        self.real = Path(os.path.realpath(root))
        self.seen: set[tuple[int, int]] = set()
        self.links: list[Path] = []

    def files(self) -> Iterator[Path]:
        yield from self._below(self.root)
        while self.links:
            links, self.links = sorted(self.links), []
            for link in links:
                if Path(os.path.realpath(link)) in self.real.parents:
                    self._leave(_AGAIN, link)  # all of this folder, and what is around it
                else:
                    yield from self._below(link)

    def _below(self, top: Path) -> Iterator[Path]:
        """The files below a folder, and its links to folders for later."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in self.seen:
                    self._leave(_AGAIN, folder)
                    continue
                self.seen.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    found = list(entries)
            except OSError as error:
                self._leave(_CLOSED, folder, reason_of(error))
                continue
            for entry in found:
                yield from self._entry(entry, waiting)

    def _entry(self, entry: os.DirEntry[str], waiting: list[Path]) -> Iterator[Path]:
        path = Path(entry.path)
        if entry.name.startswith("."):
            self.report.ignore("hidden", path.relative_to(self.root))
            return
        try:
            status = entry.stat()
        except OSError as error:
            self._leave(_NOWHERE if entry.is_symlink() else _CLOSED, path, reason_of(error))
            return
        if stat.S_ISREG(status.st_mode):
            yield path
        elif stat.S_ISDIR(status.st_mode):
            (self.links if entry.is_symlink() else waiting).append(path)
        else:
            self._leave("neither files nor folders", path)

    def _leave(self, kind: str, path: Path, reason: str = "") -> None:
        self.report.leave(kind, path.relative_to(self.root), reason)
