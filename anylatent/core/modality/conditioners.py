"""Conditions of data of any kind: none, or a class."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor

from anylatent.core.latents import Condition, ConditionSpec
from anylatent.core.modality.conditioner import Conditioner
from anylatent.core.modality.data import Classes
from anylatent.core.registry import register

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


@register("conditioner", "none")
class NoCondition(Conditioner):
    """No condition: all columns are ignored."""

    def __init__(self, classes: Classes | None = None) -> None:
        super().__init__()
        self.spec = ConditionSpec()

    def forward(self, columns: Mapping[str, Any]) -> Condition:
        return Condition()


@register("conditioner", "label")
class ClassLabel(Conditioner):
    """The class of a sample, from the column `key`: one of `classes[key]`, by name or index.

    `key` may be left out where the data set has one class column. A name means the class of that
    very name, else the only one that differs from it in case; "#2" is the class of the index 2, as
    is the integer 2, which `named` makes of what a user typed where no class is called "2". None
    drops the condition for that sample; no columns at all are no condition. Raises ValueError for
    other columns than `key`, unknown names and indices out of range.
    """

    def __init__(self, classes: Classes | None = None, key: str = "") -> None:
        super().__init__()
        classes = classes or {}
        if not key and len(classes) == 1:
            (key,) = classes
        if key not in classes:
            wanted = (
                f"there is no class column '{key}'" if key else "which class column is not said"
            )
            has = f"has {', '.join(classes)}" if classes else "has no classes"
            raise ValueError(f"{wanted}, and the data set {has}: set the conditioner's key")
        self.key, self.names = key, tuple(classes[key])
        self.spec = ConditionSpec(classes={key: len(self.names)})
        self._index = {name: index for index, name in enumerate(self.names)}
        self._forms = _forms(self.names)

    def forward(self, columns: Mapping[str, Any]) -> Condition:
        entries = column_entries(columns, self.key)
        if entries is None:
            return Condition()
        labels = [0 if entry is None else self._label(entry) for entry in entries]
        return Condition({self.key: torch.tensor(labels)}, {self.key: given(entries)})

    @staticmethod
    def typed(entry: object, names: Sequence[str]) -> object:
        """What a user typed for a class with these names: a number is the class of that name.

        It is an index only where no class has a number for its name.
        """
        if isinstance(entry, bool):
            return str(entry).lower() if str(entry).lower() in map(_alike, names) else entry
        if not isinstance(entry, int | float) or not any(map(_NUMBER.fullmatch, names)):
            return entry
        same = isinstance(entry, int) and 0 <= entry < len(names) and names[entry] == str(entry)
        return entry if same else str(entry)

    def _label(self, entry: object) -> int:
        if isinstance(entry, str):
            index = self._index.get(entry, self._forms.get(_alike(entry)))
            if index is not None:
                return index
        number = int(entry[1:]) if _numbered(entry) else entry
        if isinstance(number, int) and 0 <= number < len(self.names):
            return number
        raise ValueError(
            f"unknown {self.key} {entry!r}: allowed are {', '.join(self.names)}, or their index "
            f"as #0 to #{len(self.names) - 1}"
        )


def _numbered(entry: object) -> TypeGuard[str]:
    """Whether an entry is an index, such as #2."""
    return isinstance(entry, str) and re.fullmatch(r"#\d{1,9}", entry) is not None


def _forms(names: Sequence[str]) -> dict[str, int]:
    """The index of each name by its form without case, where no other name has that."""
    alike = [_alike(name) for name in names]
    counts = Counter(alike)
    return {form: index for index, form in enumerate(alike) if counts[form] == 1}


def _alike(name: str) -> str:
    """Without what keyboards and file systems differ in: case, and how accents are written."""
    return unicodedata.normalize("NFC", name).casefold()


def column_entries(columns: Mapping[str, Any], key: str) -> list[Any] | None:
    """The entries of one column as plain values, None where no column is given at all."""
    if not columns:
        return None
    if key not in columns:
        raise ValueError(f"the condition is '{key}', got {', '.join(columns)}")
    column = columns[key]
    if isinstance(column, Tensor):
        column = column.tolist()
    entries = (
        list(column) if isinstance(column, Sequence) and not isinstance(column, str) else [column]
    )
    if not entries:
        raise ValueError(f"the condition '{key}' has no entries: give one for each sample")
    return entries


def given(entries: Sequence[Any]) -> Tensor:
    """Which entries are not None, bool."""
    return torch.tensor([entry is not None for entry in entries])
