"""What the registry knows of a part: its settings, and what it is given."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
        """Type and default by name of what a configuration may set; a path is a text there."""
        found, parameters = {}, self.parameters()
        only = inspect.Parameter.KEYWORD_ONLY
        strict = any(parameter.kind is only for parameter in parameters.values())
        for name, parameter in parameters.items():
            many = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if name in self.parts or many or (strict and parameter.kind is not only):
                continue
            annotation, default = _as_text(parameter.annotation, parameter.default)
            if default is inspect.Parameter.empty:
                if annotation in _PLAIN:  # to be given by the user
                    found[name] = (annotation, MISSING)
            elif _plain(default, annotation):
                found[name] = (annotation, default)
        return found

    def valued(self, name: str, value: Any) -> Any:
        """What a configuration has for a setting, as the signature has it: tuples, paths."""
        if isinstance(value, list):
            return tuple(value)
        annotation = self.parameters()[name].annotation
        wanted = Path in (annotation, *typing.get_args(annotation))
        return Path(value) if wanted and isinstance(value, str) else value

    def makes(self, name: str) -> bool:
        """Whether the part of this name within it is handed over unbuilt."""
        annotation = self.parameters()[name].annotation
        options = (annotation, *typing.get_args(annotation))
        return any(typing.get_origin(option) is Maker for option in options)

    def given(self) -> list[str]:
        """The names of what it is given at run time: neither settings nor parts of it."""
        settings = self.settings()
        return [n for n in self.parameters() if n not in settings and n not in self.parts]


def _as_text(annotation: Any, default: Any) -> tuple[Any, Any]:
    """Annotation and default of a path as those of a text; others as they are. A path without a
    default is given at run time."""
    if annotation == Path and isinstance(default, Path):
        return str, str(default)
    if annotation == (Path | None) and (default is None or isinstance(default, Path)):
        return str | None, None if default is None else str(default)
    return annotation, default


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
