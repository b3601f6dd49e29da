"""From what a user typed to a command's configuration, and on to the command."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from anylatent.core.support.files import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from anylatent.core.cli.command import Command
    from anylatent.core.cli.overrides import Told


def launch(name: str, command: Command, typed: list[str]) -> None:
    """Composes the command's configuration from the overrides, and runs it, or tells about it."""
    from omegaconf import OmegaConf

    from anylatent.core.cli import configs, help
    from anylatent.core.cli.overrides import told
    from anylatent.core.runs import read

    configs.publish(name, command)
    asked = any(word in help.FLAGS for word in typed)
    given = told([word for word in typed if word not in help.FLAGS], command)
    failures, original = list[Exception](), sys.argv

    def task(config: DictConfig) -> None:
        sys.argv = [original[0], name, *typed]  # from which Lightning starts processes
        try:
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=not asked)
            values = given.words.restored(plain)
            if asked:
                print(help.text(name, command, values), end="")
                return
            check(values)
            command.run(read(command.config, values, "the command", strict=True))
        except Exception as error:  # kept from hydra's own printer; a sweep goes on
            failures.append(error)

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us, not to hydra's printer
    overrides = [*_inherited(given, command), *given.overrides]
    sys.argv = [original[0], *overrides]
    try:
        _hydra(name, overrides, task)
    finally:
        sys.argv = original
    if failures:
        raise failures[0]


def _inherited(given: Told, command: Command) -> list[str]:
    """What a command has from the run that it is told of, or from what its model comes from."""
    from anylatent.core.cli.inheritance import has_source, of_continued, of_source
    from anylatent.core.cli.overrides import of_run

    found = of_run(given.values, command.own, given.words) if command.own else []
    if has_source(command):
        found += of_source(given.values, given.words)
        found += of_continued(given.values, given.words, command.defaults["run"])
    return found


def _hydra(name: str, overrides: list[str], task: Callable[[DictConfig], None]) -> None:
    """Hydra's own program where it is told anything of itself, such as `-m` or `--cfg`. It composes
    everything once more to find that a plain command is no sweep: half a second for nothing."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import open_dict

    if any(word.startswith("-") or "hydra" in word.partition("=")[0] for word in overrides):
        hydra.main("pkg://anylatent.conf", name, version_base="1.3")(task)()
        return
    with hydra.initialize_config_module("anylatent.conf", version_base="1.3"):
        found = GlobalHydra.instance().hydra
        assert found is not None
        config = found.compose_config(name, overrides, RunMode.RUN)
    HydraConfig.instance().set_config(config)  # from which a command has what was typed
    with open_dict(config):
        del config["hydra"]
    task(config)


def check(values: Any, place: str = "") -> None:
    """Raises UserError for a plain setting that is not finite, by its name (parts check their own),
    and for a run without a name."""
    if place == "run" and values == "":
        raise UserError("run= is empty: give the directory of a run, such as run=runs/mine")
    if isinstance(values, float) and not math.isfinite(values):
        raise UserError(f"{place}={values} is not a finite number: give one that is")
    if isinstance(values, Mapping) and "name" not in values:
        for key, value in values.items():
            check(value, f"{place}.{key}" if place else str(key))
    elif isinstance(values, (list, tuple)):
        for value in values:
            check(value, place)
