"""What became of the entries of a folder: how many were seen and used, and why not the others.

All readers of folders share it, so that a file that is missing from a data set is always named.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

from anylatent.modalities.shared.strings import listed

_FIRST = 5


class Report:
    """Of `seen` entries of `root`, `used` are used as `what` ("pictures").

    `left_out` has the others by kind ("links that lead nowhere"), `noted` what is used otherwise
    than one may think ("captions that are empty"): both are told in one warning. What nobody
    would expect to be read, such as hidden files and documents, is in `beside` alone.
    """

    def __init__(self, root: Path, what: str) -> None:
        self.root, self.what = root, what
        self.used = 0
        self.left_out: dict[str, list[str]] = {}
        self.noted: dict[str, list[str]] = {}
        self.beside: dict[str, list[str]] = {}

    @property
    def seen(self) -> int:
        return self.used + sum(len(names) for names in self.left_out.values())

    def leave(self, kind: str, name: str | Path, reason: str = "") -> None:
        """An entry that is not used, by kind, and why."""
        _add(self.left_out, kind, name, reason)

    def note(self, kind: str, name: str | Path, reason: str = "") -> None:
        """Something about an entry that is used, or of one that would tell more of another."""
        _add(self.noted, kind, name, reason)

    def ignore(self, kind: str, name: str | Path) -> None:
        """An entry that nobody would expect to be read."""
        _add(self.beside, kind, name, "")

    def extended(self) -> Report:
        """A copy, for what only reading tells."""
        copy = Report(self.root, self.what)
        copy.used = self.used
        for name in ("left_out", "noted", "beside"):
            kinds = getattr(self, name)
            setattr(copy, name, {kind: list(names) for kind, names in kinds.items()})
        return copy

    @property
    def entries(self) -> list[str]:
        """All that is told, a line each."""
        every = [*self.left_out.items(), *self.noted.items()]
        return [f"{name} ({kind})" for kind, names in every for name in names]

    @property
    def summary(self) -> str:
        """One line: the counts, and by kind the first names."""
        left = [_kind(kind, names) for kind, names in self.left_out.items()]
        notes = [_kind(kind, names) for kind, names in self.noted.items()]
        told = f"of {self.seen} {self.what} in {self.root}, "
        told += "; ".join([*left, f"{self.used} are used"])
        return told + (f". Besides, {'; '.join(notes)}" if notes else "")

    def tell(self) -> None:
        """One warning, if there is anything to tell."""
        if self.left_out or self.noted:
            warnings.warn(self.summary, stacklevel=3)


def shown(name: str | Path) -> str:
    """The name of a file as a message may have it, in whatever bytes it is written."""
    text = name.as_posix() if isinstance(name, Path) else name
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def reason_of(error: BaseException) -> str:
    """Why something could not be read, in a few words and without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__


def _add(kinds: dict[str, list[str]], kind: str, name: str | Path, reason: str) -> None:
    entry = f"{shown(name)}: {reason}" if reason else shown(name)
    kinds.setdefault(kind, []).append(entry)


def _kind(kind: str, names: Iterable[str]) -> str:
    found = list(names)
    return f"{len(found)} {kind}: {listed(found, _FIRST, ', ')}"
