"""Places that a model comes from: `from=PATH` starts a run from what lies there.

A source is a part, `@register("source", "mine")`. What it tells is data: a configuration that can
name registered parts only, and tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor

from anylatent.core.registry import get, group, names, part
from anylatent.core.runs.config import RunConfig
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.files import UserError, place_of


class Source(ABC):
    """A model at a path. `base`: where what it leans on itself has moved to, if it has."""

    def __init__(self, path: Path, base: str | None = None) -> None:
        self.path, self.base = path, base

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether this is what lies at a path, from the names of files alone."""

    @property
    @abstractmethod
    def config(self) -> RunConfig:
        """The model, what its data say of themselves, and how it is sampled."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """What was trained so far, by the names of `System.trained()`."""

    @property
    def root(self) -> Source:
        """The source that it leans on, itself where it needs no other."""
        return self

    def digest(self) -> str:
        """Of names, shapes and values of its weights: another digest, another model."""
        weights = self.weights()
        described = {name: [str(x.dtype), list(x.shape)] for name, x in weights.items()}
        return digest(described, weights)


group("source", Source, offers={"path": Path}, chosen=False)


def source_of(path: str | Path, base: str | None = None) -> Source:
    """The source that recognises a path. Raises UserError, saying what was found, where none
    does."""
    place = place_of(path)
    for name in names("source"):
        kind = get("source", name)
        assert isinstance(kind, type) and issubclass(kind, Source)
        if kind.recognises(place):
            return kind(place, base)
    known = "; ".join(f"{name}: {part('source', name).summary}" for name in names("source"))
    raise UserError(f"from={path}: {_found(place)}. What a model can come from is {known}")


def _found(path: Path) -> str:
    if not path.exists():
        return "there is nothing there"
    if path.is_file():
        return "there is a file, which no source recognises"
    inside = sorted(entry.name for entry in path.iterdir())
    more = " ..." if len(inside) > 5 else ""
    return f"there is a folder with {', '.join(inside[:5]) or 'nothing'}{more}"
