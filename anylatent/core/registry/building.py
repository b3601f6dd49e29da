"""Parts from configuration nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anylatent.core.registry.part import RegistryError
from anylatent.core.registry.store import _parts, groups, part


def build(group: str, node: Mapping[str, Any], **runtime: Any) -> Any:
    """Constructs the part that a configuration node `{name: ..., setting: ...}` describes.

    Nothing but registered parts is ever constructed. Of `runtime`, a part gets what its signature
    names.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
        raise RegistryError(f"{group} must be given as {{name: ..., settings}}, got {node!r}")
    record = part(group, node["name"])
    settings, parameters = record.settings(), record.parameters()
    given = {key: value for key, value in node.items() if key != "name"}
    unknown = [key for key in given if key not in settings and key not in record.parts]
    if unknown:
        allowed = ", ".join([*settings, *record.parts]) or "none"
        raise RegistryError(
            f"{group}={record.name} has no setting {', '.join(unknown)}; its settings are {allowed}"
        )
    for key, value in given.items():
        if key in record.parts:
            given[key] = build(record.parts[key][0], value, **runtime)
        elif isinstance(value, list):
            given[key] = tuple(value)
    extra = {key: value for key, value in runtime.items() if key in parameters and key not in given}
    return record.factory(**given, **extra)


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose parts, `{name: ..., settings}` by group, have the settings that they
    lack: one that was saved before a part had them means their defaults."""
    return {
        group: _completed(group, node) if group in groups() and isinstance(node, Mapping) else node
        for group, node in config.items()
    }


def _completed(group: str, node: Mapping[str, Any]) -> dict[str, Any]:
    if node.get("name") not in _parts[group]:
        return dict(node)
    record = _parts[group][node["name"]]
    own = {key: default for key, (_, default) in record.settings().items()}
    own = {key: list(v) if isinstance(v, tuple) else v for key, v in own.items()}
    own |= {key: {"name": name} for key, (_, name) in record.parts.items()} | dict(node)
    for key, (kind, _) in record.parts.items():
        own[key] = _completed(kind, own[key])
    return own
