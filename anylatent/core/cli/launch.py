"""From what a user typed to a command's configuration, and on to the command."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anylatent.core.cli.command import Command


def launch(name: str, command: Command, typed: list[str]) -> None:
    """Composes the command's configuration from the overrides, and runs it."""
    import hydra
    from omegaconf import DictConfig, OmegaConf

    from anylatent.core.cli.configs import publish
    from anylatent.core.cli.inheritance import has_source, of_source
    from anylatent.core.cli.overrides import of_run, told
    from anylatent.core.runs import read

    publish(name, command)
    given = told(typed, command)
    failures, original = list[Exception](), sys.argv
    inherited = of_run(given.values, command.own, given.words) if command.own else []
    if has_source(command):
        inherited += of_source(given.values, given.words)

    def task(config: DictConfig) -> None:
        sys.argv = [original[0], name, *typed]  # from which Lightning starts processes
        try:
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            command.run(read(command.config, given.words.restored(plain), "the command"))
        except Exception as error:  # kept from hydra's own printer; a sweep goes on
            failures.append(error)

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us, not to hydra's printer
    sys.argv = [original[0], *inherited, *given.overrides]
    try:
        hydra.main("pkg://anylatent.conf", name, version_base="1.3")(task)()
    finally:
        sys.argv = original
    if failures:
        raise failures[0]
