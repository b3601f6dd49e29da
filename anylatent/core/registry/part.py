"""What the registry knows of a part: its settings, and what it is given."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_PLAIN = (int, float, bool, str, type(None))


MISSING = "???"


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
