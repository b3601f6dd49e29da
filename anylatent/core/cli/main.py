"""The command line: anylatent train | sample | invert | evaluate | benchmark | list.

Help and usage errors cost no heavy import. The other commands take Hydra overrides.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

HELP = """\
anylatent: one latent diffusion core for images, video, 3D shapes, text and molecules

  anylatent train modality=image run=runs/emoji [overrides]
      trains the autoencoder, then the diffusion model; the same command continues a stopped run
  anylatent sample run=runs/emoji n=16 seed=0 [solver=dpmpp_2m steps=20 guidance.scale=3
                   cond.category=flags out=samples]
      draws samples, saved as files with a contact sheet
  anylatent invert run=runs/emoji n=8 [solver=dpmpp_2m steps=50 data=folder data.path=mine]
      data to the noise that the model makes them from, and back; 'sample noise=FILE' edits them
  anylatent evaluate run=runs/emoji [n=1000]
      figures of the model's samples and reconstructions
  anylatent benchmark modality=image run=runs/emoji
      the same beside held-out data, data made worse and an untrained model, and the speed
  anylatent benchmark solvers run=runs/emoji [n=16 evaluations=[5,10,20,50]]
      how near each solver comes to the model's exact solution, and which to use
  anylatent list [group]
      the registered parts; plugins add theirs

Every override is Hydra's: group=part chooses a part, group.setting=value sets it, -m sweeps.
'anylatent COMMAND --help' shows the groups and the whole configuration of a command.
ANYLATENT_PLUGINS=module,module loads plugins that are not installed. ANYLATENT_DEBUG=1 shows
tracebacks.
"""

PACKAGE = Path(__file__).resolve().parents[2]

COMMANDS = ("train", "sample", "invert", "evaluate", "benchmark", "list")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 0, or with 1 and one message on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return
    if given[0] == "--version":
        import anylatent

        print(anylatent.__version__)
        return
    command, rest = given[0], given[1:]
    if command not in COMMANDS:
        _fail(f"unknown command '{command}'; choose one of {', '.join(COMMANDS)}")
    if command == "benchmark" and rest[:1] == ["solvers"]:
        command, rest = "solvers", rest[1:]
    with _plain_warnings():
        _guard(lambda: _run(command, rest), command)


def _run(command: str, rest: list[str]) -> None:
    if command == "list":
        from anylatent.core.cli.listing import show

        show(rest)
        return
    from anylatent.core.cli.launch import launch

    launch(command, rest)


def _guard(action: Callable[[], Any], command: str) -> None:
    """Errors that a user can put right are one message; others keep their traceback."""
    try:
        action()
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception as error:
        if os.environ.get("ANYLATENT_DEBUG") or not _expected(error):
            raise
        from anylatent.core.cli.errors import explain

        _fail(explain(error, command))


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


def _fail(message: str, code: int = 1) -> None:
    print(f"anylatent: {message}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
