"""`anylatent train run=R`, where there is a run: it goes on with its own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from anylatent.core.cli.inheritance import PRESETS
from anylatent.core.registry import names
from anylatent.core.runs import ModelConfig, RunDirectory, SamplingConfig, first_process, read
from anylatent.core.support.files import UserError
from anylatent.core.training.settings import TrainConfig
from anylatent.core.training.stages.base import stage_type

ALWAYS = ("run", "stage", "base", "standalone", "finish", "data_changed", "classifier")
"""What a command says for itself alone."""


def continued(config: TrainConfig, typed: Sequence[str]) -> TrainConfig:
    """A command whose run is there already: all that was not typed is the run's own.

    `typed` are the keys that were. Raises UserError for a stage beside a run that is not there;
    whether the run may go on so is found out by who trains it.
    """
    directory = RunDirectory(Path(config.run))
    first = {key.split(".")[0] for key in typed}
    beside = config.stage in names("stage") and stage_type(config.stage).further
    if first & set(PRESETS) or not (beside or directory.config_path.exists()):
        return config
    values, told = _laid_over(asdict(config), directory.plain()), asdict(config)
    for key in [*typed, *ALWAYS]:
        path = _path(key)
        _put(values, path, _at(told, path))
    if first_process():
        print(f"{config.run} goes on with its own settings ({directory.config_path})", flush=True)
    return read(TrainConfig, values, str(directory.config_path))


def _laid_over(told: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What the run has, and of what it has not what the command says."""
    found = dict(told)
    for key, value in own.items():
        if key not in told:
            continue  # what the data say of themselves is found out anew
        inner = key in ("model", "sampling", "training", "trainer", "pictures", "checkpoint")
        found[key] = {**told[key], **value} if inner and isinstance(value, Mapping) else value
    return found


def _path(key: str) -> list[str]:
    """Where a key of the command line stands in its configuration."""
    first, *rest = key.split(".")
    for place, kind in (("model", ModelConfig), ("sampling", SamplingConfig)):
        if first in {known.name for known in fields(kind)}:
            return [place, first, *rest]
    return [first, *rest]


def _at(values: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            raise UserError(f"there is no setting {'.'.join(path)}")
        values = values[name]
    return values


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets a value at a place, below copies of what is on the way there."""
    *way, last = path
    for name in way:
        inner = values.get(name)
        values[name] = dict(inner) if isinstance(inner, Mapping) else {}
        values = values[name]
    values[last] = value
