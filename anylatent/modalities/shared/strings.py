"""Strings as tensors, for caches, and as keys by which one is told from another."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor


def text_tensor(text: str) -> Tensor:
    """A text as bytes of UTF-8."""
    return _bytes(bytearray(text.encode()))


def tensor_text(tensor: Tensor) -> str:
    """The text of bytes."""
    return bytes(tensor.numpy()).decode()


def lines_tensor(lines: Sequence[str]) -> Tensor:
    """Strings without line breaks, a line each, as bytes."""
    return text_tensor("".join(f"{line}\n" for line in lines))


def tensor_lines(tensor: Tensor) -> list[str]:
    """The strings of `lines_tensor`."""
    return tensor_text(tensor).split("\n")[:-1]


def _bytes(content: bytearray) -> Tensor:
    return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0).byte()


class _Texts(Sequence[str]):
    """Strings of which each is made when it is asked for."""

    @abstractmethod
    def _text(self, place: int) -> str: ...

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Picked: ...
    def __getitem__(self, index: int | slice) -> str | Picked:
        places = range(len(self))[index]
        return Picked(self, places) if isinstance(places, range) else self._text(places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


_BLOCK, _ROWS = 2**20, 2**12


class Lines(_Texts):
    """N strings without line breaks in the bytes of one tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._content = tensor.numpy()
        ends = [
            np.flatnonzero(self._content[start : start + _BLOCK] == ord("\n")) + start
            for start in range(0, len(self._content), _BLOCK)
        ]
        self._ends = np.concatenate(ends) if ends else np.empty(0, dtype=int)

    @classmethod
    def of(cls, lines: Iterable[str]) -> Lines:
        """Of strings that come one after another."""
        content = bytearray()
        for line in lines:
            content += line.encode()
            content.append(ord("\n"))
        return cls(_bytes(content))

    def __len__(self) -> int:
        return len(self._ends)

    def _text(self, place: int) -> str:
        start = self._ends[place - 1] + 1 if place else 0
        return self._content[start : self._ends[place]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in [*self._ends[_ROWS - 1 :: _ROWS], *self._ends[-1:]]:
            lines = self._content[start : end + 1].tobytes().decode().split("\n")
            yield from lines[:-1]
            start = end + 1

    def some(self, rows: Sequence[int]) -> Iterator[str]:
        """Of many rows in any order, faster than one by one."""
        for first in range(0, len(rows), _ROWS):
            wanted = np.array(rows[first : first + _ROWS], dtype=int)
            starts = np.where(wanted > 0, self._ends[wanted - 1] + 1, 0)
            content = self._content.data
            for start, end in zip(starts.tolist(), self._ends[wanted].tolist(), strict=True):
                yield str(content[start:end], "utf-8")


class Picked(_Texts):
    """Some of many strings, without a list of them."""

    def __init__(self, texts: Sequence[str], rows: Sequence[int]) -> None:
        self._texts, self._rows = texts, rows

    def __len__(self) -> int:
        return len(self._rows)

    def _text(self, place: int) -> str:
        return self._texts[self._rows[place]]

    def __iter__(self) -> Iterator[str]:
        if isinstance(self._texts, Lines):
            return self._texts.some(self._rows)
        return map(self._texts.__getitem__, self._rows)


def key(text: str) -> int:
    """64 bits that tell one text from another: the head of its SHA-256, the lowest byte first."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def listed(things: Sequence[str], most: int = 10, between: str = "; ") -> str:
    """The first things, and how many more there are."""
    more = f"{between}and {len(things) - most} more" if len(things) > most else ""
    return between.join(things[:most]) + more
