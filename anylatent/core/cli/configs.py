"""The configuration of a command as Hydra's: parts as options, keys with types, plugins' `conf/`.

What a command is told is a dataclass; from it comes the schema that Hydra composes and checks, and
into it goes what was composed. A run's own parts and settings enter as options named `own`: data,
never text that is read again.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from anylatent import conf
from anylatent.core.cli.command import Command
from anylatent.core.registry import Part, declared, groups, names, part, plugin_modules
from anylatent.core.runs import Node

HYDRA = {
    "help": {"app_name": "anylatent"},
    "run": {"dir": "."},
    "sweep": {"dir": ".", "subdir": "."},
    "output_subdir": None,
}
QUIET = [{"override hydra/job_logging": "disabled"}, {"override hydra/hydra_logging": "disabled"}]


_published: dict[tuple[str, str], Part] = {}  # what Hydra's store has, which lasts for the process


class PluginConfigs(SearchPathPlugin):
    """Adds `conf/` of every plugin that has one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for module in plugin_modules():
            for folder in _folders(module):
                search_path.append(f"anylatent-{module}", f"file://{folder}")


def folders() -> list[Path]:
    """Where configurations lie: the package's own, and `conf/` of every plugin that has one."""
    own = [Path(folder) for folder in conf.__path__]
    return [*own, *(folder for module in plugin_modules() for folder in _folders(module))]


def _folders(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    found = [Path(folder) / "conf" for folder in (spec and spec.submodule_search_locations) or []]
    return [folder for folder in found if folder.is_dir()]


def publish(name: str, command: Command) -> None:
    """Makes each part an option of its group, and the command's configuration the one of its name.

    A modality's own option is a YAML file that chooses its parts, and refers to the published one
    as `/_modality@modality: name`.
    """
    store = ConfigStore.instance()
    for group in (group for group in groups() if declared(group).chosen):
        for option in names(group):
            record = part(group, option)
            if _published.get((group, option)) is not record:
                target = "_modality" if group == "modality" else group
                store.store(group=target, name=option, node=schema(record))
                _published[group, option] = record
    for place, (kind, choices) in command.nested().items():
        entries: list[Any] = [{f"/{group}@{group}": option} for group, option in choices.items()]
        inner = below(command, place)
        entries += [{f"/_keys@{key}": _option(f"{place}.{key}")} for key in inner]
        node = keys(kind, {}, [*choices, *inner], [*entries, "_self_"])
        store.store(group="_keys", name=_option(place), node=node)
    store.store(name=name, node=_primary(command))
    Plugins.instance().register(PluginConfigs)


def _primary(command: Command) -> Any:
    """The schema of all that a command is told, and the defaults list of its choices."""
    inner, choices = below(command, ""), command.choices
    after = [*(g for g, option in choices.items() if option is None), *command.late]
    entries: list[Any] = [{g: option} for g, option in choices.items() if g not in after]
    entries += [{f"/_keys@{key}": _option(key)} for key in inner]
    entries += ["_self_", *({group: choices.get(group)} for group in after), {"own": None}]
    chosen = [g for g, option in choices.items() if option is not None]
    return keys(command.config, command.defaults, [*chosen, *inner], [*entries, *QUIET], HYDRA)


def below(command: Command, place: str) -> list[str]:
    """The keys right below a place that hold others."""
    start = f"{place}." if place else ""
    found = (key.removeprefix(start) for key in command.nested() if key.startswith(start))
    return [key for key in found if "." not in key]


def _option(place: str) -> str:
    return place.replace(".", "_")


def publish_own(nodes: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """A run's own parts as options `own` of their groups, and its plain settings by key; returns
    the overrides that choose them."""
    store = ConfigStore.instance()
    for group, node in nodes.items():
        _store_own(group, "own", node or {"name": "none"})
    if values:
        store.store(group="own", name="own", package="_global_", node=dict(values))
    return [*(f"{group}=own" for group in nodes), *(["own=own"] if values else [])]


def _store_own(group: str, name: str, node: Node) -> None:
    """An option with the values of a node, and options for the parts within it."""
    record = part(group, node["name"])
    for key, (inner, default) in record.parts.items():
        _store_own(inner, f"{name}_{key}", node.get(key) or {"name": default})
    inner_parts = {key: f"{name}_{key}" for key in record.parts}
    ConfigStore.instance().store(group=group, name=name, node=schema(record, node, inner_parts))


# ---- schemas ----------------------------------------------------------------------------------
def schema(
    record: Part, values: Mapping[str, Any] | None = None, inner: Mapping[str, str] | None = None
) -> Any:
    """A typed node `{name, settings}`, so that Hydra itself refuses a wrong key or type; with other
    defaults than the part's own where there are `values`, and other options for parts within it."""
    fields, values = list[Any](), values or {}
    if record.parts:
        chosen = inner or {key: option for key, (_, option) in record.parts.items()}
        kinds = {key: group for key, (group, _) in record.parts.items()}
        # _self_ first: else its own None would replace the parts
        fields.append(_defaults(["_self_", *({f"/{kinds[k]}@{k}": chosen[k]} for k in chosen)]))
    fields.append(("name", str, record.name))
    for key, (annotation, default) in record.settings().items():
        fields.append(_setting(key, annotation, values.get(key, default)))
    fields += [(key, Any, None) for key in record.parts]
    return dataclasses.make_dataclass(f"{record.group}_{record.name}", fields)


def _setting(key: str, annotation: Any, default: Any) -> Any:
    """A field of a schema; of the kinds that Hydra knows, or of any."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return (
            key,
            (inner := keys(annotation, {}, [], [])),
            dataclasses.field(default_factory=inner),
        )
    if annotation is not Any and isinstance(default, (tuple, list)):
        entry: Any = type(default[0]) if default else Any
        return key, list[entry], dataclasses.field(default_factory=list(default).copy)
    if isinstance(default, Mapping):  # names of the user's own: {name: value}
        kinds: Any = get_args(annotation) or (str, Any)
        return key, dict[kinds[0], kinds[1]], dataclasses.field(default_factory=dict(default).copy)
    if isinstance(default, list):
        return key, Any, dataclasses.field(default_factory=default.copy)
    options = get_args(annotation) or (annotation,)
    plain = all(option in (int, float, bool, str, type(None)) for option in options)
    return key, annotation if plain else Any, default


def _defaults(entries: list[Any]) -> Any:
    return "defaults", list[Any], dataclasses.field(default_factory=entries.copy)


def keys(
    kind: type,
    defaults: Mapping[str, Any],
    chosen: list[str],
    entries: list[Any],
    hydra: Mapping[str, Any] | None = None,
) -> Any:
    """The schema of a dataclass: its fields, typed, where those that are `chosen` come from the
    options that the defaults list `entries` names."""
    fields = [_defaults(entries)] if entries else []
    for name, annotation, default in _fields(kind, defaults):
        fields.append((name, Any, "???") if name in chosen else _setting(name, annotation, default))
    if hydra is not None:
        fields.append(("hydra", Any, dataclasses.field(default_factory=dict(hydra).copy)))
    return dataclasses.make_dataclass(kind.__name__, fields)


def _fields(kind: type, defaults: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name, type and default of all fields, those of inline dataclasses among them."""
    found, hints = list[tuple[str, Any, Any]](), get_type_hints(kind)
    for known in dataclasses.fields(kind):
        if known.metadata.get("inline"):
            found += _fields(hints[known.name], defaults)
            continue
        default: Any = "???"
        if known.name in defaults:
            default = defaults[known.name]
        elif known.default is not dataclasses.MISSING:
            default = known.default
        elif known.default_factory is not dataclasses.MISSING:
            default = known.default_factory()
        found.append((known.name, hints[known.name], default))
    return found
