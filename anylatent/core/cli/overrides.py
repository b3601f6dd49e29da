"""What a user typed, as Hydra's overrides; and what a run has, as options beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anylatent.core.cli.command import Command
from anylatent.core.cli.configs import publish_own
from anylatent.core.cli.inheritance import has_source, typed_values
from anylatent.core.registry import groups, names, part
from anylatent.core.runs import RunDirectory, stored_config

NAME = r"(?!(true|false|null)$)[a-z]\w*"


def read_typed(typed: Sequence[str], command: Command) -> list[str]:
    """The overrides as Hydra reads them."""
    found = [re.sub(r"^likelihood=(?=\d)", "likelihood.samples=", item) for item in typed]
    found = [re.sub(r"^data\.changed=", "data_changed=", item) for item in found]
    if has_source(command):  # which Python could not name as users do
        found = [re.sub(r"^([\w.]+\.)?from=", r"\1source=", item) for item in found]
    if "modality" not in command.choices:  # it is the run's, which is checked
        found = [re.sub(r"^modality=", "run_is=", item) for item in found]
    return [choice(item) for item in found]


def choice(override: str) -> str:
    """`schedule.base=vp` chooses a part within a part, for Hydra `schedule@schedule.base=vp`."""
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


def quoted(override: str) -> str:
    """`cond.x=free text` may hold spaces and commas, and names a key of any name, as do settings
    with names of the user's own."""
    key, sign, value = override.partition("=")
    key = key.lstrip("+")
    if sign and _open(key):
        return f"++{key}={value}"
    if not sign or not (key.startswith("cond.") or key == "tuning.pattern"):
        return override
    plain = re.match(r"""^(['"\[{]|-?\d+(\.\d*)?$|true$|false$|null$)""", value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    if key == "tuning.pattern":  # a regular expression may have any signs
        return override if value[:1] in "'\"" else f"{key}='{escaped}'"
    return f"++{key}={value}" if plain else f"++{key}='{escaped}'"


def _open(key: str) -> bool:
    """Whether a key is below a setting whose own keys are the user's, `{name: value}`."""
    group, *path = key.split(".")
    for depth, name in enumerate(path):
        records = [part(group, option) for option in names(group)] if group in groups() else []
        defaults = (record.settings().get(name, (None, None))[1] for record in records)
        if any(isinstance(default, Mapping) for default in defaults):
            return depth < len(path) - 1
        group = next((r.parts[name][0] for r in records if name in r.parts), "")
    return False


def key_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


# ---- what a run has ---------------------------------------------------------------------------
def of_run(overrides: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Publishes what the run has of the wanted groups and keys, or the noise that samples are to
    start from; returns the overrides that choose it, before what the user typed."""
    given = typed_values(overrides)
    if "run" not in given:
        return []
    config = RunDirectory(Path(given["run"])).config()
    own: dict[str, Any] = {"data": config.data, **asdict(config.sampling)}
    if given.get("noise", "null") != "null":
        sampling, count = stored_config(Path(given["noise"]))
        own, wanted = {**own, **asdict(sampling), "n": count}, [*wanted, "n"]
    mine = {key: own[key] for key in wanted if key in own and key not in given}
    nodes = {key: value for key, value in mine.items() if key in groups()}
    return publish_own(nodes, {key: mine[key] for key in mine if key not in nodes})
