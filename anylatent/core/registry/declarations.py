"""Groups of parts: what a part of a group must be, and what it may be given beside its settings.

A room declares its group beside the class that its parts derive from. What is `offered` there are
all the names that a part's constructor may ask for and that no configuration sets; a name that is
neither a setting nor offered is an error when the part is registered, not a None in silence. Groups
with `facts` also offer what data say about themselves, by the names that `facts` declares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anylatent.core.registry.part import Part, RegistryError
from anylatent.core.support.kinds import fits, words


@dataclass(frozen=True)
class Group:
    """A kind of part: the class of what its factories return, and what they are offered.

    Configurations choose among those of a group by `group=name`, but for one that is not `chosen`.
    """

    name: str
    base: type
    offers: Mapping[str, Any] = field(default_factory=dict)
    facts: bool = False
    chosen: bool = True

    def offered(self) -> dict[str, Any]:
        """Name and type of all that a part of this group may be given at run time."""
        return {**(_facts if self.facts else {}), **self.offers}

    def check(self, part: Part) -> None:
        """Raises RegistryError for a part of another kind, or one that asks for what none gives."""
        if isinstance(part.factory, type) and not issubclass(part.factory, self.base):
            raise RegistryError(
                f"{self.name}={part.name} ({part.origin}) is no {self.base.__name__}, which every "
                f"part of the group '{self.name}' must be"
            )
        unknown = [name for name in part.given() if name not in self.offered()]
        if unknown:
            also = ", and what data say of themselves (anylatent.facts)" if self.facts else ""
            raise RegistryError(
                f"{self.name}={part.name} ({part.origin}) asks for {', '.join(unknown)}, which is "
                f"no setting (a number, a text, a flag, or a tuple of such) and which nobody gives "
                f"it: a {self.name} is offered {', '.join(self.offered()) or 'nothing'}{also}"
            )


_groups: dict[str, Group] = {}
_facts: dict[str, Any] = {}


def group(
    name: str,
    base: type,
    *,
    offers: Mapping[str, Any] | None = None,
    facts: bool = False,
    chosen: bool = True,
) -> Group:
    """Declares a group of parts. Raises RegistryError where another is there under this name."""
    found = Group(name, base, dict(offers or {}), facts, chosen)
    known = _groups.get(name)
    if known is not None and (known.base, known.facts) != (base, facts):
        raise RegistryError(f"two groups are named {name}: of {known.base} and of {base}")
    _groups[name] = found
    return found


def facts(**kinds: Any) -> None:
    """Declares names, with their types, under which data of some kind tell what they are.

    A part of a group that is offered facts gets each that its constructor names.
    """
    _facts.update(kinds)


def check_facts(told: Mapping[str, Any]) -> None:
    """Raises RegistryError for what data say of themselves that is not of the declared type."""
    for name, value in told.items():
        if name in _facts and not fits(value, _facts[name]):
            raise RegistryError(
                f"the data say {name}={value} of themselves, which is not {words(_facts[name])}"
            )


def declared(name: str) -> Group:
    """The group of this name; raises RegistryError where there is none."""
    if name not in _groups:
        raise RegistryError(
            f"no group '{name}'; there are {', '.join(sorted(_groups))}. A group of your own is "
            "declared by anylatent.group"
        )
    return _groups[name]
