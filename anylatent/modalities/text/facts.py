"""What data of texts say about themselves, by name; parts of a model are built from it."""

from collections.abc import Sequence

from anylatent.core.registry import facts

facts(
    vocabulary=int,
    tokenizer=str,
    lengths=Sequence[Sequence[int]],
    shortest=int,
    longest=int,
    kind=str,
)
