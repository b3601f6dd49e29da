"""The commands that take a Hydra configuration."""

from __future__ import annotations

import importlib
import os
import re
import sys

from anylatent.core.cli.overrides import INHERITED, SAMPLING, choice, inherit, of_run, quote


def launch(command: str, overrides: list[str]) -> None:
    """Composes the command's configuration from the overrides and runs it."""
    import hydra
    from omegaconf import DictConfig, OmegaConf

    from anylatent.core.cli.configs import check_numbers, publish

    publish()
    overrides = [re.sub(r"^likelihood=(?=\d)", "likelihood.samples=", item) for item in overrides]
    overrides = [choice(item) for item in overrides]
    if command != "train":
        overrides = [re.sub(r"^modality=", "run_is=", item) for item in overrides]
        overrides = inherit(overrides, INHERITED.get(command, (*SAMPLING, "steps")))
    action = importlib.import_module(f"anylatent.core.cli.commands.{command}").run
    failures = list[Exception]()

    def task(config: DictConfig) -> None:
        sys.argv = [original[0], command, *overrides]  # from which Lightning starts processes
        try:
            resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            assert isinstance(resolved, dict)
            check_numbers(resolved, command)
            if command == "train" and resolved["stage"] == "classifier":
                resolved = of_run(resolved, overrides)
            action({str(key): value for key, value in resolved.items()})
        except Exception as error:  # kept from hydra's own printer; a sweep goes on
            failures.append(error)

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us, not to hydra's printer
    original = sys.argv
    sys.argv = [original[0], *(quote(override) for override in overrides)]
    try:
        hydra.main("pkg://anylatent.conf", command, version_base="1.3")(task)()
    finally:
        sys.argv = original
    if failures:
        raise failures[0]
