"""Data whose parts are those of before, whatever a data set of now would hold out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item, fetch
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.progress import track

PIECE = 256


class KnownSplit(Data):
    """The items of `inner`, of which `learned` and `held` name places among those to learn from,
    followed by those that are held out."""

    def __init__(self, inner: Data, learned: Sequence[int], held: Sequence[int]) -> None:
        self.inner, self.places = inner, (list(learned), list(held))
        self.classes, self.shape = inner.classes, inner.shape

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
        lengths = [getattr(part, "lengths", None) for part in self.parts]
        self.lengths: Tensor | None = None
        if all(isinstance(value, Tensor) for value in lengths):
            self.lengths = torch.cat([x for x in lengths if x is not None])[self.places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Item:
        place = self.places[index]
        part, inside = (0, place) if place < self.first else (1, place - self.first)
        item: Item = self.parts[part][inside]
        return item

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        return [self[index] for index in indices]


def digests(data: Data) -> tuple[Tensor, Tensor]:
    """A number for each item that is learned from, and for each that is held out, int64: of what
    the item shows, not of its place or name."""

    def build() -> dict[str, Tensor]:
        return {"train": _digests(data.train()), "held_out": _digests(data.held_out())}

    found = cached("items", data.fingerprint, build)
    return found["train"], found["held_out"]


def _digests(dataset: Any) -> Tensor:
    found = list[int]()
    starts = range(0, len(dataset), PIECE)
    for start in track(starts, "digests of items", len(starts)):
        items = fetch(dataset, range(start, min(start + PIECE, len(dataset))))
        found += [_digest(item) for item in items]
    return torch.tensor(found, dtype=torch.int64)


def _digest(item: Item) -> int:
    """Of its tensors, or, where it has none, of its texts."""
    state = hashlib.blake2b(digest_size=8)
    tensors = {name: value for name, value in item.items() if isinstance(value, Tensor)}
    for name, value in sorted((tensors or item).items()):
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            state.update(f"{name} {tuple(plain.shape)}".encode())
            state.update(plain.flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, str) and name != "name":
            state.update(f"{name} {value}".encode())
    return int.from_bytes(state.digest(), "little", signed=True)
