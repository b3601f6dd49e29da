"""YAML of plain values: no tags, anchors or aliases, and no more of it than we write ourselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from anylatent.core.support.files import UserError

LARGEST, DEEPEST = 2**23, 64  # bytes of a file, and values within values


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses what makes little text large, and what no run has."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which no configuration of a run has")
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested deeper than {DEEPEST} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str) -> Any:
    """In quotes where it has signs that a reader would take for something else."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def load_yaml(path: Path) -> Any:
    """Plain values; text stays text, whatever is in it. Raises UserError for anything else."""
    size = path.stat().st_size
    if size > LARGEST:
        raise UserError(f"{path} has {size} bytes, more than a configuration of a run ({LARGEST})")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{path} can not be read: {told}") from None


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Raises UserError for more than `load_yaml` reads."""
    text: str = yaml.dump(plain(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if (size := len(text.encode())) > LARGEST:
        raise UserError(
            f"a configuration of {size} bytes is more than a run can have ({LARGEST}): give its "
            "data fewer classes, or shorter names"
        )
    return text


def plain(value: Any) -> Any:
    """With dictionaries and lists for all mappings and sequences."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    return value
