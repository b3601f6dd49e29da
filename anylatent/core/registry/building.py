"""Parts from configuration nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from anylatent.core.registry.part import Part, RegistryError
from anylatent.core.registry.store import part
from anylatent.core.support.files import UserError
from anylatent.core.support.kinds import fits, words


def build(group: str, node: Mapping[str, Any], **runtime: Any) -> Any:
    """Constructs the part that a configuration node `{name: ..., setting: ...}` describes.

    Nothing but registered parts is ever constructed. Of `runtime`, a part gets what its signature
    names. Raises RegistryError for what there is not, and for settings that a part fails on without
    an error of its own.
    """
    record, given = _chosen(group, node)
    parameters = record.parameters()
    for key, value in given.items():
        if key in record.parts:
            given[key] = _inner(record, key, value, runtime)
        else:
            given[key] = record.valued(key, value)
    extra = {key: value for key, value in runtime.items() if key in parameters and key not in given}
    try:
        return record.factory(**given, **extra)
    except (RegistryError, UserError, ValueError, ImportError, OSError):
        raise
    except Exception as error:
        told = " ".join(str(error).split())
        settings = {key: value for key, value in node.items() if key != "name"}
        raise RegistryError(
            f"{group}={record.name} can't be built with {settings or 'its own settings'} "
            f"({type(error).__name__}: {told}). ANYLATENT_DEBUG=1 shows where"
        ) from error


def _chosen(group: str, node: Mapping[str, Any]) -> tuple[Part, dict[str, Any]]:
    """The part that a node names, and the settings that it gives; raises for what there is not."""
    if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
        raise RegistryError(f"{group} must be given as {{name: ..., settings}}, got {node!r}")
    record = part(group, node["name"])
    given = {key: value for key, value in node.items() if key != "name"}
    allowed = [*record.settings(), *record.parts]
    unknown = [key for key in given if key not in allowed]
    if unknown:
        raise RegistryError(
            f"{group}={record.name} has no setting {', '.join(unknown)}; its settings are "
            f"{', '.join(allowed) or 'none'}"
        )
    settings = record.settings()
    for key in [key for key in given if key not in record.parts]:
        value, (kind, default) = given[key], settings[key]
        if not fits(value, kind):
            raise RegistryError(f"{group}.{key}={value} is not {words(kind)}, which it must be")
        if _wrong(value, default):
            raise RegistryError(f"{group}.{key}={value} is not finite: give a number that is")
    return record, given


def _wrong(value: Any, default: Any) -> bool:
    """Whether a setting has a number that is not finite, and is not the part's own."""
    if isinstance(value, (list, tuple)):
        return any(_wrong(one, default) for one in value)
    return isinstance(value, float) and not math.isfinite(value) and value != default


def _inner(record: Part, key: str, node: Mapping[str, Any], runtime: Mapping[str, Any]) -> Any:
    """A part within a part, or its maker where the outer one wants to build it itself."""
    group = record.parts[key][0]
    if not record.makes(key):
        return build(group, node, **runtime)
    _chosen(group, node)  # a wrong one is an error now, not when it is made

    def make(**given: Any) -> Any:
        return build(group, node, **{**runtime, **given})

    return make
