"""Data whose parts are those of before, whatever a data set of now would hold out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item, fetch
from anylatent.core.support.columns import Window
from anylatent.core.support.digests import number_of
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.progress import track

PIECE = 256


class KnownSplit(Data):
    """The items of `inner`, of which `learned` and `held` name places among those to learn from,
    followed by those that are held out."""

    def __init__(self, inner: Data, learned: Sequence[int], held: Sequence[int]) -> None:
        self.inner, self.places = inner, (list(learned), list(held))
        self.classes, self.shape, self.window = inner.classes, inner.shape, inner.window

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    @property
    def facts(self) -> dict[str, Any]:
        return self.inner.facts

    @property
    def fingerprint(self) -> str:
        chosen = hashlib.sha256(repr(self.places).encode()).hexdigest()[:16]
        return f"{self.inner.fingerprint} {chosen}"

    def train(self) -> Dataset[Item]:
        return Places(self.inner, self.places[0])

    def held_out(self) -> Dataset[Item]:
        return Places(self.inner, self.places[1])


class Places(Dataset[Item]):
    """Some items of both parts of a data set, by their places in one after the other."""

    def __init__(self, data: Data, places: Sequence[int]) -> None:
        self.parts: list[Any] = [data.train(), data.held_out()]
        self.places, self.first = list(places), len(self.parts[0])
        self.lengths, self.sources = self._told("lengths"), self._told("sources")

    def _told(self, name: str) -> Tensor | None:
        """What both parts tell of each item, of those that are here."""
        found = [getattr(part, name, None) for part in self.parts]
        if not all(isinstance(value, Tensor) for value in found):
            return None
        return torch.cat([value for value in found if value is not None])[self.places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int | Window) -> Item:
        place = self.places[index.item if isinstance(index, Window) else index]
        part, inside = (0, place) if place < self.first else (1, place - self.first)
        there = index._replace(item=inside) if isinstance(index, Window) else inside
        item: Item = self.parts[part][there]
        return item

    def __getitems__(self, indices: Sequence[int | Window]) -> list[Item]:
        return [self[index] for index in indices]


class Digests(NamedTuple):
    """A number for each item that is learned from, and for each that is held out, int64: of what
    the item shows, not of its place or name; of what it was made from where the data tell that by
    `sources`, (N,) int64, as pictures do, which may be read in another size. `told`: of the texts
    and classes of both."""

    train: Tensor
    held_out: Tensor
    told: Tensor

    @property
    def every(self) -> Tensor:
        return torch.cat([self.train, self.held_out])


def digests(data: Data) -> Digests:
    def build() -> dict[str, Tensor]:
        train, first = _digests(data, data.train())
        held_out, second = _digests(data, data.held_out())
        return {"train": train, "held_out": held_out, "told": torch.cat([first, second])}

    return Digests(**cached("items", {"version": 3, "data": data.fingerprint}, build))


def _digests(data: Data, dataset: Any) -> tuple[Tensor, Tensor]:
    shown, told, starts = list[int](), list[int](), range(0, len(dataset), PIECE)
    sources: Tensor | None = getattr(dataset, "sources", None)
    columns: Mapping[str, Sequence[Any]] | None = getattr(dataset, "columns", None)
    for start in track(starts, "digests of items", len(starts)):
        places = range(start, min(start + PIECE, len(dataset)))
        if sources is not None and columns is not None:  # which need no item to be read
            items = [{name: column[i] for name, column in columns.items()} for i in places]
        else:
            items = fetch(dataset, places)
        if sources is None:
            shown += [_shown(item) for item in items]
        told += [_told(item, data.classes) for item in items]
    numbers = torch.tensor(shown, dtype=torch.int64) if sources is None else sources
    return numbers, torch.tensor(told, dtype=torch.int64)


def _shown(item: Item) -> int:
    """Of its tensors, or, where it has none, of its texts."""
    found = list[bytes]()
    tensors = {name: value for name, value in item.items() if isinstance(value, Tensor)}
    for name, value in sorted((tensors or item).items()):
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            found.append(f"{name} {tuple(plain.shape)}".encode())
            found.append(plain.flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, str) and name != "name":
            found.append(f"{name} {value}".encode())
    return number_of(*found)


def _told(item: Item, classes: Mapping[str, Sequence[str]]) -> int:
    """Of its texts, its numbers and the names of its classes."""
    found = list[bytes]()
    for name, value in sorted(item.items()):
        if isinstance(value, int) and name in classes and 0 <= value < len(classes[name]):
            found.append(repr((name, classes[name][value])).encode())
        elif isinstance(value, (int, float, str)) and name != "name":
            found.append(repr((name, value)).encode())
    return number_of(*found)
