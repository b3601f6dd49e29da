"""Which keys of a command take texts: told by annotations, of its settings and of parts."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from anylatent.core.cli.command import Command
from anylatent.core.cli.texts import Kind
from anylatent.core.registry import groups, names, part

_TEXTS = (str, Path)


def kind_of(key: str, command: Command, chosen: Mapping[str, str]) -> Kind | None:
    """What a key takes, None for one that takes no text. `chosen` names the parts that were typed,
    by the keys that choose them; of a group without one, all its parts are asked."""
    place = key.split(".")
    found = _kinds(command.config, place, key, command, chosen)
    return found.pop() if len(found) == 1 else None


def _kinds(
    config: type, path: Sequence[str], key: str, command: Command, chosen: Mapping[str, str]
) -> set[Kind | None]:
    name, rest = path[0], path[1:]
    annotation = _fields(config).get(name)
    if annotation is None and name not in groups():
        return set()
    if not rest:
        return {_kind(annotation)}
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _kinds(annotation, rest, key, command, chosen)
    nested = command.nested()
    for inner, (settings, _) in nested.items():
        if inner != name and key.startswith(f"{inner}."):
            own = key.removeprefix(f"{inner}.").split(".")
            return _kinds(settings, own, "", command, chosen)
    if name in groups():
        return _of_parts(name, rest, name, chosen)
    return {Kind.CONDITION} if _open(annotation) and name not in nested else set()


def _of_parts(
    group: str, path: Sequence[str], place: str, chosen: Mapping[str, str]
) -> set[Kind | None]:
    """What the parts of a group take for a setting, or for one of a part within them."""
    found, (name, *rest) = set[Kind | None](), path
    for record in (part(group, option) for option in _options(group, place, chosen)):
        settings = record.settings()
        if not rest and name in settings:
            found.add(_kind(settings[name][0]))
        elif rest and name in record.parts:
            found |= _of_parts(record.parts[name][0], rest, f"{place}.{name}", chosen)
        elif rest and name in settings:
            found |= _named(settings[name][0], rest[1:], place, chosen)
    return found


def _named(
    annotation: Any, path: Sequence[str], place: str, chosen: Mapping[str, str]
) -> set[Kind | None]:
    """What is taken below a name of the user's own: a text, or settings of parts."""
    if not path:
        return {Kind.TEXT} if get_args(annotation)[1:] == (str,) else set()
    if not _open(annotation):
        return set()
    if list(path) == ["source"]:  # `from=`, see `read_typed`
        return {Kind.OPTIONAL}
    known = path[0] in groups() and len(path) > 1
    return _of_parts(path[0], path[1:], f"{place}.{path[0]}", chosen) if known else set()


def _options(group: str, place: str, chosen: Mapping[str, str]) -> Sequence[str]:
    own = chosen.get(place)
    return [own] if own in names(group) else names(group)


def _fields(config: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, and of those that are inline in it."""
    found, hints = dict[str, Any](), get_type_hints(config)
    for known in dataclasses.fields(config):
        inner = hints[known.name]
        found |= _fields(inner) if known.metadata.get("inline") else {known.name: inner}
    return found


def _kind(annotation: Any) -> Kind | None:
    if annotation in _TEXTS:
        return Kind.TEXT
    options = get_args(annotation)
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is typing.Union:
        texts = any(option in _TEXTS for option in options)
        return Kind.OPTIONAL if texts and set(options) <= {*_TEXTS, type(None)} else None
    if get_origin(annotation) in (tuple, list, Sequence) and set(options) <= {*_TEXTS, ...}:
        return Kind.TEXTS
    return None


def _open(annotation: Any) -> bool:
    """Whether below a key there are names of the user's own, with values of any kind."""
    return get_origin(annotation) is Mapping and get_args(annotation) == (str, Any)
