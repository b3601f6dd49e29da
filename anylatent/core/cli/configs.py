"""Registered parts as Hydra options, and plugins' `conf/` folders on its search path."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from anylatent.core.registry import Part, groups, names, part, plugin_modules
from anylatent.core.support.files import UserError


class PluginConfigs(SearchPathPlugin):
    """Adds `conf/` of every plugin that has one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for module in plugin_modules():
            spec = importlib.util.find_spec(module)
            folders = list(spec.submodule_search_locations or []) if spec else []
            for folder in folders:
                if (Path(folder) / "conf").is_dir():
                    search_path.append(f"anylatent-{module}", f"file://{folder}/conf")


def publish() -> None:
    """Makes each part an option of its group; a modality's own option is a YAML file that
    chooses its parts, and refers to the published one as `/_modality@modality: name`."""
    store = ConfigStore.instance()
    for group in groups():
        for name in names(group):
            target = "_modality" if group == "modality" else group
            store.store(group=target, name=name, node=schema(part(group, name)))
    Plugins.instance().register(PluginConfigs)


def check_numbers(config: Mapping[Any, Any], command: str) -> None:
    """Refuses other values where the YAML of a command has numbers; parts check their own."""
    folder = Path(str(resources.files("anylatent.conf")))
    files = {"training": "training/default", "trainer": "trainer/default"}
    read = {key: OmegaConf.load(folder / f"{file}.yaml") for key, file in files.items()}
    defaults = OmegaConf.merge(OmegaConf.load(folder / f"{command}.yaml"), read)
    plain = OmegaConf.to_container(defaults)
    assert isinstance(plain, dict)
    wrong = list(_no_numbers(plain, config))
    if wrong:
        raise UserError(f"a number is wanted: {', '.join(wrong)}")


def _no_numbers(defaults: Mapping[Any, Any], config: Mapping[Any, Any]) -> Iterator[str]:
    for key, default in defaults.items():
        value = config.get(key, default)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            yield from (f"{key}.{line}" for line in _no_numbers(default, value))
        elif isinstance(default, (int, float)):
            kind = int if isinstance(default, int) else (int, float)
            if not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool):
                yield f"{key}={value} (as in {default})"


def schema(record: Part) -> Any:
    """A typed node `{name, settings}`, so that Hydra itself refuses a wrong key or type."""
    fields: list[Any] = []
    if record.parts:
        nested: list[Any] = ["_self_"]  # else its own None would replace the parts
        nested += [{f"/{group}@{key}": name} for key, (group, name) in record.parts.items()]
        fields.append(("defaults", list[Any], dataclasses.field(default_factory=nested.copy)))
    fields.append(("name", str, record.name))
    for key, (annotation, default) in record.settings().items():
        if isinstance(default, tuple):
            entry: Any = type(default[0]) if default else Any
            factory: Any = dataclasses.field(default_factory=list(default).copy)
            fields.append((key, list[entry], factory))
        elif isinstance(default, dict):  # names of the user's own: {name: value}
            kinds: Any = get_args(annotation) or (str, Any)
            factory = dataclasses.field(default_factory=default.copy)
            fields.append((key, dict[kinds[0], kinds[1]], factory))
        else:
            kind = Any if isinstance(annotation, str) else annotation
            fields.append((key, kind, default))
    for key in record.parts:
        fields.append((key, Any, None))
    return dataclasses.make_dataclass(f"{record.group}_{record.name}", fields)
