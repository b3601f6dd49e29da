"""A process that reads videos for another, which can end it.

A decoder may hang in a file for ever, where no signal and no thread of its own process gets through
to it, or end its process. So it has one of its own, that serves many files and is replaced when it
is lost. It is started anew, not forked, and as a command, so that nothing of a user's script runs
again and that workers of a loader may have one.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from anylatent.core.registry import load_plugins
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.shared.report import reason_of
from anylatent.modalities.video.data.probing import Probe, Unreadable, probe
from anylatent.modalities.video.data.readers import Animations, Reader
from anylatent.modalities.video.data.squares import Squares, Wanted

_START = 300.0  # seconds, with plugins to be imported on a busy machine
_OFTEN = 0.2  # seconds between signs of life
_ALONE = 30  # seconds beyond the limit, after which one ends that nobody has ended


@dataclass(frozen=True)
class Job:
    """A file to look at, and the squares that are wanted of it, if any."""

    path: Path
    wanted: Wanted | None = None
    reader: Reader | None = None


class Child:
    """Asks a process of its own, which is started at the first question.

    `seconds`: with no sign of life for so long it is ended, and `Unreadable` raised. That is also
    raised for a file that can't be read, and where the process ends by itself.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None

    def ask(self, job: Job) -> Iterator[tuple[str, Any]]:
        """What the process answers: "probe" (frames, seconds, who reads it instead of the reader),
        "frames" (n, places, channels, size, size), and "rate" at last."""
        line, done = self._started(job), False
        try:
            while not done:
                kind, value = self._heard(line, self.seconds)
                if kind in _FAILURES:
                    done = True
                    raise _FAILURES[kind](value)
                done = kind == "done"
                if kind not in ("alive", "done"):
                    yield kind, value
        finally:
            if not done:  # nobody would read the rest
                self.close()

    def close(self) -> None:
        """Ends the process, whatever it does."""
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._line = None, None

    # ---- parts --------------------------------------------------------------------------------
    def _started(self, job: Job) -> Connection:
        """The line to the process, which has the job."""
        try:
            told = pickle.dumps((job, self.seconds))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise _unusable(reason_of(error)) from error
        if self._line is None:
            self._start()
        assert self._line is not None
        with suppress(OSError):  # it has ended: there is no answer then
            self._line.send_bytes(told)
        return self._line

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = f"import sys; sys.path[:] = {[str(path) for path in sys.path]!r}; "
            code += f"from {__name__} import serve; serve({theirs.fileno()})"
            command = [sys.executable, "-c", code]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=[theirs.fileno()]
            )
        self._line = Connection(ours.detach())
        try:
            self._heard(self._line, _START)
        except Unreadable as error:
            raise UserError(f"the process that reads videos can't be started: {error}") from error

    def _heard(self, line: Connection, seconds: float) -> tuple[str, Any]:
        """The next word of the process; ends it where there is none."""
        try:
            if line.poll(seconds):
                kind, value = line.recv()
                return kind, value
            reason = f"the decoder hangs: nothing in {seconds:g} s (data.seconds), so it was ended"
        except (EOFError, OSError):
            assert self._process is not None
            reason = f"the decoder crashed (exit status {self._process.wait()})"
        self.close()
        raise Unreadable(reason)


def _unusable(reason: str) -> UserError:
    return UserError(
        f"the reader can't be used in a process of its own ({reason}): have its class in a module "
        "that can be imported there"
    )


def _missing(message: str) -> MissingPackage:
    error = MissingPackage("", "")
    ImportError.__init__(error, message)
    return error


_FAILURES: dict[str, Callable[[str], Exception]] = {
    "unreadable": Unreadable,
    "missing": _missing,
    "unusable": _unusable,
}


# ---- in the process ---------------------------------------------------------------------------
def serve(handle: int) -> None:
    """Answers questions that come by a socket, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with whoever asks
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    line = Connection(handle)
    load_plugins()
    line.send(("alive", None))
    with suppress(EOFError, OSError):
        while True:
            _Answer(line).to(line.recv_bytes())
            signal.alarm(0)
    os._exit(0)  # a decoder's threads may have no end


class _Answer:
    """Answers one question. Where the one who asked is gone, a hanging decoder ends by an alarm."""

    def __init__(self, line: Connection) -> None:
        self._line, self._last, self._patience = line, time.monotonic(), _ALONE

    def to(self, question: bytes) -> None:
        try:
            job, seconds = pickle.loads(question)
        except Exception as error:
            self._say("unusable", reason_of(error))
            return
        self._patience = int(seconds) + _ALONE
        signal.alarm(self._patience)
        try:
            self._read(job)
            self._say("done")
        except MissingPackage as error:
            self._say("missing", str(error))
        except (EOFError, ConnectionError):
            raise
        except Exception as error:  # decoders raise whatever they like
            self._say("unreadable", reason_of(error))

    def _read(self, job: Job) -> None:
        found = probe(job.path, self._alive)
        reader, backup = _chosen(job.reader, found)
        self._say("probe", (len(found.times), found.seconds, backup))
        if reader is not None and job.wanted is not None:
            squares = Squares(found, job.wanted)
            for pixels in squares.cut(reader.chunks(job.path, found)):
                self._say("frames", pixels)
            self._say("rate", squares.rate)

    def _alive(self) -> None:
        if time.monotonic() - self._last > _OFTEN:
            self._say("alive")

    def _say(self, kind: str, value: Any = None) -> None:
        signal.alarm(0)
        self._line.send((kind, value))
        self._last = time.monotonic()
        signal.alarm(self._patience)


def _chosen(reader: Reader | None, found: Probe) -> tuple[Reader | None, Reader | None]:
    """Who reads a file, and who does when that one fails."""
    if reader is None or found.kind == "animation":
        return Animations() if reader is not None else None, None
    backup = reader.backup()
    return (reader, backup) if backup is None or reader.reads(found) else (backup, None)
