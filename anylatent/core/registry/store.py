"""Parts by group and name, and the plugins that bring them.

`@register("solver", "heun")` records a class or function. Its parameters with plain defaults
(numbers, strings, paths, booleans, tuples of them), or of such a type without a default, are its
settings; all others are given at run time by whoever builds it, and must be among what the group
offers (see `declarations`). Where a signature has keyword-only parameters, the settings are among
those alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from anylatent.core.registry.declarations import _groups, declared
from anylatent.core.registry.part import Part, RegistryError
from anylatent.core.registry.plugins import broken, load_plugins

Factory = TypeVar("Factory", bound=Callable[..., Any])


_parts: dict[str, dict[str, Part]] = {}


def register(
    group: str, name: str, *, parts: Mapping[str, tuple[str, str]] | None = None
) -> Callable[[Factory], Factory]:
    """Records a class or function under a name.

    `parts={"base": ("schedule", "flow")}` makes the parameter `base` a part itself, by group and
    default name. It is built first, or handed over unbuilt where it is annotated as a `Maker`.
    Raises RegistryError for an unknown group, a name that is taken, a class of another kind than
    the group's, and a parameter that is neither a setting nor offered by the group.
    """
    kind = declared(group)

    def record(factory: Factory) -> Factory:
        part = Part(group, name, factory, dict(parts or {}))
        kind.check(part)
        known = _parts.setdefault(group, {}).get(name)
        if known is not None and known.origin != part.origin:
            raise RegistryError(
                f"two parts are named {group}={name}: {known.origin} and {part.origin}; rename one"
            )
        _parts[group][name] = part
        return factory

    return record


def groups() -> list[str]:
    """The declared groups, sorted."""
    load_plugins()
    return sorted(_groups)


def names(group: str) -> list[str]:
    """The registered names of a group, sorted."""
    load_plugins()
    if group not in _groups:
        raise RegistryError(f"no group '{group}'; there are {', '.join(groups())}{broken()}")
    return sorted(_parts.get(group, {}))


def part(group: str, name: str) -> Part:
    """The record of a part."""
    options = names(group)
    if name not in options:
        where = broken() or ". One of a plugin is there when ANYLATENT_PLUGINS names its module"
        raise RegistryError(f"no {group} '{name}'; there are {', '.join(options)}{where}")
    return _parts[group][name]


def get(group: str, name: str) -> Callable[..., Any]:
    """The registered class or function."""
    return part(group, name).factory


def known(group: str) -> dict[str, Part]:
    """The parts of a group that are registered by now, by name, without loading plugins."""
    return dict(sorted(_parts.get(group, {}).items()))
