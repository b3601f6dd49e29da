"""What of a model learns, where it comes from another one: `tuning=...`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import nn

from anylatent.core.registry import build, group, register
from anylatent.core.runs.config import Node
from anylatent.core.runs.system import System
from anylatent.core.support.files import UserError


class Tuning(ABC):
    """What is trained of the networks of a stage; the rest is frozen.

    A run that was tuned so and `leans` on the model that it started from saves what it trained,
    and names the rest by path and digest.
    """

    leans: ClassVar[bool] = True

    @classmethod
    def inherited(cls, stage: str, parts: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parts, by group, of a model whose stage is tuned so, where those of the model that it
        comes from are these; what a user chooses of them stands."""
        return parts

    def extend(self, system: System) -> None:  # noqa: B027 - most add nothing
        """Adds networks of its own to a model, such as guests of its backbone, before any weights
        are read. They must start as nothing, so that the model starts as what it comes from. Called
        wherever a run that was begun with this tuning is built."""

    @abstractmethod
    def learns(self, names: Sequence[str]) -> Collection[str]:
        """Which of these parameters learn: names as in the run's weights. Raises UserError where
        none would."""


group("tuning", Tuning)


@register("tuning", "all")
class All(Tuning):
    """Everything learns: a run that needs no other."""

    leans = False

    def learns(self, names: Sequence[str]) -> Collection[str]:
        return names


@register("tuning", "none")
class Nothing(Tuning):
    """Nothing learns: a run that is finished at once, another use of the model it comes from."""

    def learns(self, names: Sequence[str]) -> Collection[str]:
        return ()


@register("tuning", "matching")
class Matching(Tuning):
    """What a regular expression finds in the names of parameters, anywhere in them.

    `pattern`: such as decoder, or middle|condition.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise UserError(
                f"tuning.pattern={pattern} is no regular expression: {error}"
            ) from error

    def learns(self, names: Sequence[str]) -> Collection[str]:
        found = [name for name in names if self.pattern.search(name)]
        if not found:
            some = ", ".join(names[:: max(1, len(names) // 8)][:8])
            raise UserError(
                f"tuning.pattern={self.pattern.pattern} is found in none of the {len(names)} "
                f"parameters of this stage; some are {some}"
            )
        return found


def extend(system: System, node: Node | None) -> None:
    """What a run's tuning adds to its model."""
    if node is not None:
        tuning: Tuning = build("tuning", node)
        tuning.extend(system)


@contextmanager
def tuned(
    tuning: Tuning, networks: Mapping[str, nn.Module], spared: Collection[str] = ()
) -> Iterator[list[str]]:
    """The networks with all frozen that does not learn, for the length of a block; yields the names
    that learn. What begins with one of `spared` is left as it is: networks that only a loss
    needs."""
    named = {
        f"{key}.{name}": parameter
        for key, network in networks.items()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and not f"{key}.{name}".startswith(tuple(spared))
    }
    learning = set(tuning.learns(list(named)))
    frozen = [parameter for name, parameter in named.items() if name not in learning]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield sorted(learning)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
