"""Who does which piece of some work, among processes that know nothing else of one another."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class Claims:
    """Claims to numbered pieces of work, as locks of the kernel on the bytes of one file.

    What a process has claimed, no other can, and it is free again when the process dies, however
    that is. On systems and in directories where there are no such locks everything may be claimed:
    then work may be done twice, and results have to be put in place by renaming.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        except OSError:
            pass  # who writes there will learn it

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @contextmanager
    def claim(self, piece: int, wait: bool = True) -> Iterator[bool]:
        """Whether the piece is this process's while the block runs; `wait` until it is."""
        mine = self._lock(piece, wait)
        try:
            yield mine
        finally:
            if mine:
                self._unlock(piece)

    def _lock(self, piece: int, wait: bool) -> bool:
        try:
            import fcntl

            if self._file is not None:
                how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.lockf(self._file, how, 1, piece)
        except ImportError:
            pass
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def _unlock(self, piece: int) -> None:
        try:
            import fcntl

            if self._file is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, piece)
        except (ImportError, OSError):
            pass


class InUse:
    """Says that a thing on disk is in use, by a shared lock that lasts as long as the object, and
    in processes that are forked from its own as long as they. Waits while the thing is removed."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, _locked(path, shared=True)

    def __getstate__(self) -> Path:
        return self._path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether no process says that the thing is in use, and none does while the block runs."""
    try:
        file = _locked(path, shared=False)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        if file is not None:
            file.close()


def _locked(path: Path, shared: bool) -> BinaryIO | None:
    """The file with a lock on it, without which it is on systems and in directories that have
    none. Raises BlockingIOError where one that is not shared can't be had at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab", buffering=0)  # noqa: SIM115 - it is the lock
    except OSError:
        return None
    try:
        flocked(file, shared, wait=shared)
    except BlockingIOError:
        file.close()
        raise
    return file


def flocked(file: BinaryIO, shared: bool, wait: bool = False) -> bool:
    """Whether an open file is locked now; not where the system has no such locks. Raises
    BlockingIOError where another process has it and this one does not wait."""
    try:
        import fcntl

        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        return False
    return True
