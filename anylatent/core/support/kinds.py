"""Whether plain values, as a file or a command line has them, are of the kind that an annotation
says."""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Union, get_args, get_origin

_UNIONS = (types.UnionType, Union)


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain value is of a kind: numbers, texts, flags, None, and lists and mappings of
    such. A whole number is a float too, a flag is no number. Other kinds take any value."""
    if get_origin(kind) in _UNIONS:
        return any(fits(value, option) for option in get_args(kind))
    if kind is None or kind is type(None):
        return value is None
    if kind in (int, float):
        number = Real if kind is float else Integral
        return isinstance(value, number) and not isinstance(value, bool)
    if kind in (str, Path):
        return isinstance(value, str | Path)
    if kind is bool:
        return isinstance(value, bool)
    return _fits_many(value, get_origin(kind) or kind, get_args(kind))


def _fits_many(value: Any, outer: Any, inner: tuple[Any, ...]) -> bool:
    """Lists and mappings; a list stands for a tuple."""
    if not isinstance(outer, type) or not issubclass(outer, Collection):
        return True
    if issubclass(outer, Mapping):
        if not isinstance(value, Mapping):
            return False
        keys, values = inner or (Any, Any)
        return all(fits(k, keys) and fits(v, values) for k, v in value.items())
    if not isinstance(value, list | tuple):
        return False
    if issubclass(outer, tuple) and inner and inner[-1] is not ...:
        pairs = zip(value, inner, strict=False)
        return len(value) == len(inner) and all(fits(one, kind) for one, kind in pairs)
    return not inner or all(fits(one, inner[0]) for one in value)


def words(kind: Any) -> str:
    """A kind as a user would say it."""
    if get_origin(kind) in _UNIONS:
        return " or ".join(words(option) for option in get_args(kind))
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    names |= {Path: "a path", type(None): "null"}
    outer = get_origin(kind) or kind
    if kind in names:
        return names[kind]
    if isinstance(outer, type) and issubclass(outer, Mapping):
        return "names with values"
    if isinstance(outer, type) and issubclass(outer, Collection):
        inner = [one for one in get_args(kind)[:1] if one is not Any]
        return f"a list, each {words(inner[0])}" if inner else "a list"
    return typing.cast(str, getattr(kind, "__name__", str(kind)))
