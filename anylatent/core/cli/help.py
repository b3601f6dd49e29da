"""`anylatent COMMAND --help`: what can be chosen, and all that is set, as it would be now."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from anylatent.core.cli.command import Command
from anylatent.core.cli.configs import folders
from anylatent.core.registry import groups, names, part
from anylatent.core.support.plain_yaml import dump_yaml

FLAGS = ("-h", "--help")
TYPED = {"source": "from", "data_changed": "data.changed", "run_is": "modality"}
"""What users type for a key of another name."""


def text(name: str, command: Command, values: Mapping[str, Any]) -> str:
    """The usage of a command, the options of each group and what is chosen and set; `values` are
    those of its configuration with whatever else was typed."""
    usage = f"usage: anylatent {command.usage or name.replace('_', ' ')}".replace("\n", "\n       ")
    width = min(shutil.get_terminal_size().columns, 120)
    choices = [(key, names(group), now) for key, group, now in _choices(values)]
    if "experiment" in command.late:
        choices.append(("experiment", _presets(), ""))
    choices.sort(key=lambda choice: (choice[0].count("."), choice[0]))
    chosen = [_options(*choice, width) for choice in choices]
    return "\n".join(
        [
            usage,
            "",
            "Parts: KEY=NAME chooses one, KEY.SETTING=VALUE sets something of it. What is chosen",
            "now has a star; 'anylatent list GROUP' explains those of a group.",
            *chosen,
            "",
            "Settings, as they are now: KEY=VALUE sets one. ??? has to be given.",
            dump_yaml(_typed(values)),
        ]
    )


def _typed(node: Any) -> Any:
    """Keys as a user types them."""
    if not isinstance(node, Mapping):
        return node
    return {TYPED.get(key, key): _typed(value) for key, value in node.items()}


def _choices(
    node: Mapping[str, Any], path: tuple[str, ...] = (), inner: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str, str]]:
    """The key, the group and the name of each part in a configuration, parts within parts too."""
    for key, value in node.items():
        if not isinstance(value, Mapping):
            continue
        group, place, parts = (inner or {}).get(key, key), (*path, key), dict[str, str]()
        if value.get("name") in (names(group) if group in groups() else ()):
            yield ".".join(place), group, value["name"]
            known = part(group, value["name"]).parts
            parts = {name: kind for name, (kind, _) in known.items()}
        yield from _choices(value, place, parts)


def _options(key: str, options: Iterable[str], now: str, width: int) -> str:
    shown = ", ".join(f"{name}*" if name == now else name for name in options)
    return textwrap.fill(shown, width, initial_indent=f"  {key:<13} ", subsequent_indent=" " * 16)


def _presets() -> list[str]:
    """The names of whole experiments, of the package and of plugins."""
    return sorted(path.stem for folder in folders() for path in folder.glob("experiment/*.yaml"))
