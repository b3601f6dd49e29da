"""Commands as parts: what one is told, where that comes from, and what it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from anylatent.core.registry import group


class Command(ABC):
    """`anylatent NAME`, registered by `@register("command", NAME)`.

    `config` is a dataclass, read once from what the user typed; its fields are the keys of the
    command line. A field of the type `Node` is a choice among the parts of the group of its name,
    `choices` names the one that is taken by default, None where there need be none. `defaults` has
    values for fields that have none of their own, `own` names the groups and keys that are those of
    `run=` unless they are given. `usage` are the lines of the help.

    A module of a command imports nothing heavy: it is read for the help.
    """

    usage: ClassVar[str] = ""
    choices: ClassVar[Mapping[str, str | None]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {}
    own: ClassVar[tuple[str, ...]] = ()
    late: ClassVar[tuple[str, ...]] = ()
    """Groups whose options change other choices, and come after them."""

    @property
    @abstractmethod
    def config(self) -> type:
        """The dataclass of what it is told."""

    def nested(self) -> Mapping[str, tuple[type, Mapping[str, str]]]:
        """Dataclasses for keys that hold others, by key, with the choices of parts within them."""
        return {}

    @abstractmethod
    def run(self, config: Any) -> None:
        """Does it."""


group("command", Command, chosen=False)
SAMPLING = ("solver", "grid", "guidance", "steps")
"""What samples are drawn by: of a command that draws some, the run's own unless given."""
USUAL = {"solver": "adams", "grid": "soft", "guidance": "classifier_free"}
DRAWING: Mapping[str, str | None] = {**USUAL, "generator": None}
