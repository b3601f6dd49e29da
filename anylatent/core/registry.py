"""Parts by group and name, and the plugins that bring them.

`@register("solver", "heun")` records a class or function. Its parameters with plain defaults
(numbers, strings, booleans, tuples of them), or of such a type without a default, are its
settings; all others are given at run time by whoever builds it. Where a signature has keyword-only
parameters, the settings are among those alone. Plugins are modules named by the entry-point group
`anylatent.plugins` or by `ANYLATENT_PLUGINS=module,module`; importing one registers its parts. The
modalities that come with anylatent take the same path.
"""

from __future__ import annotations

import importlib
import inspect
import os
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeVar

ENTRY_POINTS = "anylatent.plugins"
ENVIRONMENT = "ANYLATENT_PLUGINS"
_PLAIN = (int, float, bool, str, type(None))
MISSING = "???"

Factory = TypeVar("Factory", bound=Callable[..., Any])


class RegistryError(LookupError):
    """An unknown or duplicate part, or an unknown setting of one."""


@dataclass(frozen=True)
class Part:
    """A registered class or function; `parts` names its settings that are parts themselves."""

    group: str
    name: str
    factory: Callable[..., Any]
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of its documentation."""
        return (inspect.getdoc(self.factory) or "").strip().split("\n")[0]

    @property
    def origin(self) -> str:
        return f"{self.factory.__module__}.{self.factory.__qualname__}"

    def parameters(self) -> Mapping[str, inspect.Parameter]:
        try:
            return inspect.signature(self.factory, eval_str=True).parameters
        except NameError:  # an annotation that only type checkers can resolve
            return inspect.signature(self.factory).parameters

    def settings(self) -> dict[str, tuple[Any, Any]]:
        """Type and default by name of what a configuration may set."""
        found, parameters = {}, self.parameters()
        only = inspect.Parameter.KEYWORD_ONLY
        strict = any(parameter.kind is only for parameter in parameters.values())
        for name, parameter in parameters.items():
            if name in self.parts or (strict and parameter.kind is not only):
                continue
            if parameter.default is inspect.Parameter.empty:
                if parameter.annotation in _PLAIN:  # to be given by the user
                    found[name] = (parameter.annotation, MISSING)
            elif _plain(parameter.default, parameter.annotation):
                found[name] = (parameter.annotation, parameter.default)
        return found


def _plain(default: Any, annotation: Any) -> bool:
    if isinstance(default, (tuple, dict)):
        entries = default.values() if isinstance(default, dict) else default
        return all(isinstance(entry, _PLAIN) for entry in entries)
    if default is not None:
        return isinstance(default, _PLAIN)
    options = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    )
    return all(option in _PLAIN for option in options)


_parts: dict[str, dict[str, Part]] = {}
_failures: dict[str, BaseException] = {}
_modules: list[str] = []
_loaded = False


def register(
    group: str, name: str, *, parts: Mapping[str, tuple[str, str]] | None = None
) -> Callable[[Factory], Factory]:
    """Records a class or function under a name.

    `parts={"base": ("schedule", "flow")}` makes the parameter `base` a part itself, by group and
    default name.
    """

    def record(factory: Factory) -> Factory:
        part = Part(group, name, factory, dict(parts or {}))
        known = _parts.setdefault(group, {}).get(name)
        if known is not None and known.origin != part.origin:
            raise RegistryError(
                f"two parts are named {group}={name}: {known.origin} and {part.origin}; rename one"
            )
        _parts[group][name] = part
        return factory

    return record


def load_plugins() -> None:
    """Imports every plugin once; one that fails is a warning, and the rest works."""
    global _loaded
    if _loaded:
        return
    _loaded = True
    sources = [(entry.name, entry.value) for entry in metadata.entry_points(group=ENTRY_POINTS)]
    named = [module.strip() for module in os.environ.get(ENVIRONMENT, "").split(",")]
    sources += [(module, module) for module in named if module]
    for name, module in dict.fromkeys(sources):
        try:
            importlib.import_module(module)
            _modules.append(module)
        except RegistryError:  # two parts of one name: which is meant can't be known
            _loaded = False
            raise
        except Exception as error:
            _failures[name] = error
            warnings.warn(
                f"plugin '{name}' ({module}) could not be imported and is left out: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )


def plugin_modules() -> list[str]:
    """The modules of the plugins that could be imported."""
    load_plugins()
    return list(_modules)


def groups() -> list[str]:
    load_plugins()
    return sorted(_parts)


def names(group: str) -> list[str]:
    """The registered names of a group, sorted."""
    load_plugins()
    if group not in _parts:
        raise RegistryError(f"no group '{group}'; there are {', '.join(groups())}{broken()}")
    return sorted(_parts[group])


def part(group: str, name: str) -> Part:
    """The record of a part."""
    options = names(group)
    if name not in options:
        raise RegistryError(f"no {group} '{name}'; there are {', '.join(options)}{broken()}")
    return _parts[group][name]


def get(group: str, name: str) -> Callable[..., Any]:
    """The registered class or function."""
    return part(group, name).factory


def broken() -> str:
    """What to add to a message about a missing part: the plugins that it may have been in."""
    return "".join(
        f". Plugin '{name}' could not be imported: {type(error).__name__}: {error}"
        for name, error in _failures.items()
    )


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
