"""What a user typed, as Hydra's overrides; and what a run has, as options beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anylatent.core.cli.command import Command
from anylatent.core.cli.inheritance import has_source, published
from anylatent.core.cli.kinds import kind_of
from anylatent.core.cli.texts import Kind, Words, reading
from anylatent.core.registry import groups, names, part
from anylatent.core.runs import RunDirectory, StoredNoise
from anylatent.core.support.files import UserError

TAKING = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--info", "-i", "--experimental-rerun"),
)
"""Hydra's flags that take the next word."""

NAME = r"(?!(true|false|null)$)[a-z]\w*"


def read_typed(typed: Sequence[str], command: Command) -> list[str]:
    """The overrides as Hydra reads them."""
    for before, item in zip(["", *typed], typed, strict=False):
        if "=" not in item and not item.startswith(("-", "~")) and before not in TAKING:
            raise UserError(f"'{item}' is no setting: what is told is KEY=VALUE or GROUP=PART")
    found = [re.sub(r"^likelihood=(?=-?\d)", "likelihood.samples=", item) for item in typed]
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


@dataclass(frozen=True)
class Told:
    """What a user told a command: the values by key, as they are meant, Hydra's overrides, in which
    words stand for texts, and those words."""

    values: Mapping[str, Any]
    overrides: Sequence[str]
    words: Words


def told(typed: Sequence[str], command: Command) -> Told:
    """Reads what was typed. Raises UserError for a reference in a value that is no text."""
    found, words = read_typed(typed, command), Words()
    pairs = [item.partition("=") for item in found if "=" in item and item[:1] != "-"]
    chosen = {key.lstrip("+"): value for key, _, value in pairs}
    sweeps = any(item in ("-m", "--multirun") for item in found)
    values, overrides = dict[str, Any](), list[str]()
    for item in found:
        key, sign, value = item.partition("=")
        plain = key.lstrip("+~")
        kind = None if not sign or item[:1] in "-~" else kind_of(plain, command, chosen)
        if kind is None or (value == "???" and kind is not Kind.CONDITION):
            _no_reference(item)
            overrides.append(quoted(item))
            values[plain] = value.strip("'\"") if value != "null" else None
            continue
        values[plain] = reading(value, kind, hydras=key != plain)
        key = f"++{plain}" if _open(plain) else key
        overrides.append(_override(key, value, values[plain], kind, sweeps, words))
    return Told(values, overrides, words)


def _override(key: str, value: str, meant: Any, kind: Kind, sweeps: bool, words: Words) -> str:
    """For Hydra, with words in place of texts; of a text that is swept over, one for each."""
    if kind is Kind.CONDITION:  # a name of any signs
        place, _, name = key.lstrip("+").partition(".")
        return f"++{place}.{words.word(name)}={words.word(meant)}"
    if meant is None:
        return f"{key}=null"
    if kind is Kind.TEXTS:
        return (
            f"{key}=[{','.join(map(words.word, meant))}]"
            if isinstance(meant, list)
            else f"{key}={words.word(meant)}"
        )
    several = value.split(",") if sweeps and meant == value else [meant]
    return f"{key}={','.join(words.word(text) for text in several)}"


def _no_reference(item: str) -> None:
    if "${" in item:
        raise UserError(
            f"{item}: ${{...}} refers to nothing on the command line, it is text like any other, "
            f"and {key_of(item)} takes none: give the value itself"
        )


def quoted(override: str) -> str:
    """Below a setting whose own keys are the user's, `{name: value}`, a key may be new."""
    key, sign, value = override.partition("=")
    key = key.lstrip("+")
    return f"++{key}={value}" if sign and _open(key) else override


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
def of_run(given: Mapping[str, Any], wanted: Sequence[str], words: Words) -> list[str]:
    """Publishes what the run has of the wanted groups and keys, or the noise that samples are to
    start from; returns the overrides that choose it, before what the user typed."""
    if "run" not in given:
        return []
    config = RunDirectory(Path(given["run"])).config()
    own: dict[str, Any] = {"data": config.data, **asdict(config.sampling)}
    if given.get("noise") is not None:
        sampling, count = StoredNoise.told(Path(given["noise"]))
        own, wanted = {**own, **asdict(sampling), "n": count}, [*wanted, "n"]
    mine = {key: own[key] for key in wanted if key in own and key not in given}
    return published(mine, words)
