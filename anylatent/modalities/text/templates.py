"""Templates: texts with gaps, and where their tokens lie in a sample of some length."""

from __future__ import annotations

import re
from dataclasses import dataclass

from anylatent.core.support.files import UserError
from anylatent.modalities.text.tokenizer import Tokenizer

GAP = re.compile(r"_{3,}")
"""Three underscores, or more in a row."""


@dataclass(frozen=True)
class Layout:
    """A template in a sample of n tokens.

    `tokens` (n), 0 in the gaps; `given` (n), where they count; `spaced` (n), true at the first
    token of each gap before which the template has a space.
    """

    tokens: list[int]
    given: list[bool]
    spaced: list[bool]

    @classmethod
    def free(cls, length: int) -> Layout:
        """Nothing is given."""
        return cls([0] * length, [False] * length, [False] * length)


@dataclass(frozen=True)
class Template:
    """A text with gaps of one token or more: the tokens of its `pieces`, one more than gaps.

    `pieces` are tokenised apart, so that they decode to the template's own characters whatever
    fills the gaps. A space before a gap belongs to it, as tokens of words begin with their space:
    `spaced` says of each gap whether its text must begin with one.
    """

    pieces: tuple[tuple[int, ...], ...]
    spaced: tuple[bool, ...]

    @classmethod
    def parse(cls, text: object, tokenizer: Tokenizer) -> Template:
        """The template in which `___` is a gap.

        Raises UserError for what is no text, has no gap, or has characters without a token.
        """
        if not isinstance(text, str) or GAP.search(text) is None:
            raise UserError(
                f"cond.template={text!r}: a text with a gap is wanted, three underscores for what "
                'is to be filled in, as in "In the beginning ___ the earth"'
            )
        *before, last = GAP.split(text)
        spaced = tuple(piece.endswith(" ") for piece in before)
        pieces = [
            piece[:-1] if space else piece for piece, space in zip(before, spaced, strict=True)
        ]
        try:
            if any(spaced):
                tokenizer.encode(" ")  # may have to be put in
            found = tuple(tuple(tokenizer.encode(piece)) for piece in [*pieces, last])
        except UserError as error:
            raise UserError(f"cond.template={text!r}: {error}") from error
        return cls(found, spaced)

    @property
    def fixed(self) -> int:
        """The number of given tokens."""
        return sum(map(len, self.pieces))

    @property
    def least(self) -> int:
        """The length of the shortest sample: each gap has a token."""
        return self.fixed + len(self.spaced)

    def layout(self, length: int) -> Layout:
        """Where the tokens lie in a sample of `length`, at least `least`.

        Gaps share the rest evenly, the first ones having one token more where it does not divide:
        a function of the length alone.
        """
        gaps = len(self.spaced)
        share, more = divmod(length - self.fixed, gaps)
        if share < 1:
            raise ValueError(f"a template of {self.least} tokens or more in a sample of {length}")
        found = Layout([], [], [])
        for index, piece in enumerate(self.pieces):
            _append(found, piece, [True] * len(piece))
            if index < gaps:
                size = share + (index < more)
                start = len(found.tokens)
                _append(found, (0,) * size, [False] * size)
                found.spaced[start] = self.spaced[index]
        return found


def _append(layout: Layout, tokens: tuple[int, ...], given: list[bool]) -> None:
    layout.tokens.extend(tokens)
    layout.given.extend(given)
    layout.spaced.extend([False] * len(tokens))


def filled(layout: Layout, made: list[int], tokenizer: Tokenizer) -> list[int]:
    """The given tokens in their places, and those of `made` in the gaps.

    Where a gap must begin with a space and does not, a token of one is put before it, and the text
    has a token more. A text that ended early has no tokens for the last places of its gaps.
    """
    found: list[int] = []
    for place, token in enumerate(layout.tokens):
        if layout.spaced[place] and not _begins_with_space(place, layout, made, tokenizer):
            found += tokenizer.encode(" ")
        if layout.given[place]:
            found.append(token)
        elif place < len(made):
            found.append(made[place])
    return found


def _begins_with_space(place: int, layout: Layout, made: list[int], tokenizer: Tokenizer) -> bool:
    ends = (k for k in range(place, len(layout.given)) if layout.given[k])
    gap = made[place : next(ends, len(layout.given))]
    return tokenizer.decode(gap).startswith(" ")
