"""What data of molecules say about themselves, by name; parts of a model are built from it."""

from collections.abc import Mapping, Sequence

from anylatent.core.registry import facts

facts(
    elements=Sequence[str],
    charges=Sequence[int],
    sizes=Sequence[Sequence[int]],
    properties=Mapping[str, Mapping[str, float | str]],
)
