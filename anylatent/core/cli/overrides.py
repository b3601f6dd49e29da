"""What a user typed, and what a run has, as Hydra's overrides."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SAMPLING = ("solver", "grid", "guidance")


INHERITED = {"solvers": ("guidance",), "invert": ("grid", "data")}
"""What a command takes from a run's configuration, where that is not all of how it samples."""


NAME = r"(?!(true|false|null)$)[a-z]\w*"


def inherit(overrides: list[str], wanted: Sequence[str]) -> list[str]:
    """Puts the run's own solver, grid, guidance and steps before what the user asks for, or those
    of stored noise that samples are to start from."""
    from anylatent.core.runs import RunDirectory

    given = {_key(item): item.partition("=")[2] for item in overrides if "=" in item}
    if "run" not in given:
        return overrides
    config = RunDirectory(Path(given["run"].strip("'\""))).config()
    numbers = ["steps"] if "steps" in wanted else []
    if given.get("noise", "null") != "null":
        from anylatent.core.runs import stored_settings

        config |= stored_settings(Path(given["noise"].strip("'\"")))
        numbers.append("n")
    inherited = [f"{key}={config[key]}" for key in numbers if key not in given]
    for group in (group for group in wanted if group != "steps"):
        node = config.get(group)
        if isinstance(node, dict):
            lines = _written(group, group, node, given)
            inherited += [line for line in lines if _key(line) not in given]
    return inherited + overrides


def _written(
    group: str, place: str, node: Mapping[str, Any], given: Container[str]
) -> Iterator[str]:
    """The overrides that choose and set a part as its node says, unless another one is given."""
    from anylatent.core.registry import part

    choice = group if place == group else f"{group}@{place}"
    if choice in given:
        return
    yield f"{choice}={node['name']}"
    inner = part(group, node["name"]).parts
    for key, value in node.items():
        if key in inner and isinstance(value, dict):
            yield from _written(inner[key][0], f"{place}.{key}", value, given)
        elif isinstance(value, dict):  # names of the user's own
            yield from (f"{place}.{key}.{name}={entry}" for name, entry in value.items())
        elif key != "name" and value is not None:
            yield f"{place}.{key}={_text(value) if isinstance(value, str) else value}"


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def choice(override: str) -> str:
    """`schedule.base=vp` chooses a part within a part, for Hydra `schedule@schedule.base=vp`."""
    from anylatent.core.registry import groups, names, part

    key, _, value = override.partition("=")
    group, *path = key.split(".")
    if group not in groups() or not path or not re.fullmatch(NAME, value):
        return override
    for name in path:
        inner = (part(group, option).parts for option in names(group))
        group = next((parts[name][0] for parts in inner if name in parts), "")
        if not group:
            return override
    return f"{group}@{override}"


def of_run(config: dict[Any, Any], overrides: list[str]) -> dict[Any, Any]:
    """For a further stage of a finished run its own settings, where none of them is repeated."""
    from anylatent.core.runs import RunDirectory, is_free

    given = [item.lstrip("+~").partition("=")[0] for item in overrides if "=" in item]
    if not all(is_free(key.partition("@")[2] or key) for key in given):
        return config  # which must be the run's
    own = RunDirectory(Path(config["run"])).config()
    fresh = ("run", "stage", "trainer", "pictures", "checkpoint", "log_every", "classifier")
    training = {**own["training"], "classifier": config["training"]["classifier"]}
    return {**own, **{key: config[key] for key in fresh}, "training": training}


def quote(override: str) -> str:
    """`cond.x=free text` may hold spaces and commas, and names a key of any name, as do scales."""
    key, sign, value = override.partition("=")
    key = key.lstrip("+")
    if sign and re.match(r"guidance\.(denoiser\.)*scales\.", key):
        return f"++{key}={value}"
    if not sign or not key.startswith("cond."):
        return override
    plain = re.match(r"""^(['"\[{]|-?\d+(\.\d*)?$|true$|false$|null$)""", value)
    return f"++{key}={value if plain else _text(value)}"


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
