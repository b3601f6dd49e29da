"""A data set: what is learned from, and what is held out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch.utils.data import Dataset

from anylatent.core.modality.batch import Item
from anylatent.core.registry import facts, group

Classes: TypeAlias = Mapping[str, Sequence[str]]
"""The class columns of a data set and the names of their values."""

facts(shape=tuple[int, ...], classes=Classes)


class Data(ABC):
    """A data set in two parts that share no sample: what is learned from, and what is held out.

    `classes` names the values of each integer label column. `shape` is what the autoencoder is
    built for (for pictures (C, H, W)). `window`: of long items, which have `lengths`, so many
    entries in a row are learned from at a time; None for whole ones.
    """

    classes: Classes
    shape: tuple[int, ...]
    window: int | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values that the model is built from and that are saved with a run.

        A part receives each fact that its constructor names.
        """
        classes = {key: list(values) for key, values in self.classes.items()}
        return {"shape": list(self.shape), "classes": classes}

    @property
    def empty(self) -> Sequence[str]:
        """The columns of texts that are empty in every item: no conditioner could learn of them."""
        return ()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest that changes whenever an item would; keys the caches."""

    @abstractmethod
    def train(self) -> Dataset[Item]:
        """The items to learn from; deterministic, of known length."""

    @abstractmethod
    def held_out(self) -> Dataset[Item]:
        """The items that no training sees."""

    def parted(self) -> Data:
        """The same items, some of them held out as ever where what a model knows was given to read
        them by, and nothing would be."""
        return self

    def judged_by(self) -> Dataset[Item]:
        """What networks that judge samples learn from: better items that no generator sees."""
        return self.train()


group("data", Data, facts=True)
