"""What the registry knows of a part: its settings, and what it is given."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

_PLAIN = (int, float, bool, str, type(None))


MISSING = "???"


Made = TypeVar("Made", covariant=True)


class Maker(Protocol[Made]):
    """A part within a part that is not built yet: `maker(spec=..., ...)` builds it, as often as it
    is called. What it isn't given it gets of what its owner was offered."""

    def __call__(self, **given: Any) -> Made: ...


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
            many = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if name in self.parts or many or (strict and parameter.kind is not only):
                continue
            if parameter.default is inspect.Parameter.empty:
                if parameter.annotation in _PLAIN:  # to be given by the user
                    found[name] = (parameter.annotation, MISSING)
            elif _plain(parameter.default, parameter.annotation):
                found[name] = (parameter.annotation, parameter.default)
        return found

    def makes(self, name: str) -> bool:
        """Whether the part of this name within it is handed over unbuilt."""
        annotation = self.parameters()[name].annotation
        options = (annotation, *typing.get_args(annotation))
        return any(typing.get_origin(option) is Maker for option in options)

    def given(self) -> list[str]:
        """The names of what it is given at run time: neither settings nor parts of it."""
        settings = self.settings()
        return [n for n in self.parameters() if n not in settings and n not in self.parts]


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
