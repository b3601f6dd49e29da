"""The command line: anylatent train | sample | invert | evaluate | benchmark | list.

Help and usage errors cost no heavy import. The other commands take Hydra overrides.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

HEAD = "anylatent: one latent diffusion core for images, video, 3D shapes, text and molecules"
TAIL = """\
  anylatent list [group]
      the registered parts; plugins add theirs

Every override is Hydra's: group=part chooses a part, group.setting=value sets it, -m sweeps.
'anylatent COMMAND --help' shows the groups and the whole configuration of a command.
A text or a path is what you type, whatever signs are in it; README tells of lists and quotes.
ANYLATENT_PLUGINS=module,module loads plugins that are not installed. ANYLATENT_CACHE=folder is
where the cache is, ANYLATENT_CACHE_BYTES=2e10 its limit. ANYLATENT_DEBUG=1 shows tracebacks.
"""

TWO_WORDS = {"benchmark solvers": "solvers", "cache clear": "cache_clear"}
PACKAGE = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 0, or with 1 and one message on stderr."""
    _shown_anywhere(sys.stdout)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return
    if given[0] == "--version":
        import anylatent

        print(anylatent.__version__)
        return
    name, rest = given[0], given[1:]
    if f"{name} {' '.join(rest[:1])}" in TWO_WORDS:
        name, rest = TWO_WORDS[f"{name} {rest[0]}"], rest[1:]
    with _plain_warnings(), _ended_tidily():
        _guard(lambda: _run(name, rest), name)


def help_text() -> str:
    """What there is; the commands of plugins are told by `anylatent list command`."""
    from anylatent.core.registry import discover, known

    discover("anylatent.core.cli.commands")
    usages = [part.factory.usage for part in known("command").values()]  # type: ignore[attr-defined]
    order = ("train", "sample", "invert", "evaluate", "benchmark m", "benchmark s")
    usages.sort(key=lambda text: [text.startswith(word) for word in order], reverse=True)
    lines = [f"  anylatent {text}".replace("\n", "\n  ") for text in usages if text]
    return "\n".join([HEAD, "", *lines, TAIL])


def _run(name: str, rest: list[str]) -> None:
    if name == "list":
        from anylatent.core.cli.listing import show

        show(rest)
        return
    from anylatent.core.registry import discover, get, known, names

    discover("anylatent.core.cli.commands")
    if name not in known("command") and name not in names("command"):
        every = ", ".join([*names("command"), "list"]).replace("_", " ")
        _fail(f"unknown command '{name}'; choose one of {every}")
    from anylatent.core.cli.launch import launch

    launch(name, get("command", name)(), rest)


def _shown_anywhere(stream: object) -> None:
    """Lets a terminal show signs that it does not have as escapes, instead of an error."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def _guard(action: Callable[[], Any], command: str) -> None:
    """Errors that a user can put right are one message; others keep their traceback."""
    try:
        action()
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        ended = isinstance(error, _Ended)
        _fail("ended" if ended else "interrupted", 143 if ended else 130)
    except BrokenPipeError:  # whoever read it has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except Exception as error:
        if os.environ.get("ANYLATENT_DEBUG") or not _expected(error):
            raise
        from anylatent.core.cli.errors import explain

        _fail(explain(error, command))


class _Ended(KeyboardInterrupt):
    """SIGTERM, which lets go of what is held as Ctrl-C does."""


@contextmanager
def _ended_tidily() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended

    if threading.current_thread() is not threading.main_thread():
        yield  # Python gives signals to no other
        return
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_IGN:
        yield  # as whoever started this wants
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _expected(error: BaseException) -> bool:
    from anylatent.core.registry import RegistryError
    from anylatent.core.support.files import UserError

    if isinstance(error, (UserError, RegistryError, ValueError, OSError, ImportError)):
        return True
    return type(error).__module__.split(".")[0] in ("hydra", "omegaconf")


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """The package's own warnings are one line each; others are shown as usual."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UserWarning) and Path(filename).resolve().is_relative_to(PACKAGE):
            print(f"anylatent: warning: {message}", file=file or sys.stderr)
        else:
            usual(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def _shown(message: str) -> str:
    """Without signs that a terminal would obey, and words that would fill it."""
    plain = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    return re.sub(r"\S{400,}", lambda word: f"{word[0][:100]}... ({len(word[0])} signs)", plain)


def _fail(message: str, code: int = 1) -> None:
    print(f"anylatent: {_shown(message)}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
