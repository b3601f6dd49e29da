"""What the rest of the program asks of a modality: batches, and the contracts of its parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Noise
from anylatent.core.modality.batch import Batch, Item, stack_items
from anylatent.core.modality.data_space import DataSpace
from anylatent.core.modality.given_data import Given
from anylatent.core.modality.outputs import Outputs
from anylatent.core.modality.sizes import FixedSizes, Sizes
from anylatent.core.registry import group


class Modality(ABC):
    """How data of one kind are batched and sized; their outputs save and show themselves, and each
    `Metric` says what it judges.

    `sizes` is the law of the sizes of samples, `data_space` the data as latents, `given` what
    samples may be asked to contain; the latter two are None where there is no such thing.
    `encoding` names the facts of data by which their items are numbers: a model reads no data of
    others.
    """

    encoding: Sequence[str] = ("shape",)
    sizes: Sizes = FixedSizes()
    data_space: DataSpace | None = None
    given: Given | None = None

    @property
    def asks(self) -> list[str]:
        """The conditions that are no conditioner's: those that sizes and given data read."""
        given = () if self.given is None else self.given.asks
        return list(dict.fromkeys([*self.sizes.asks, *given]))

    @property
    def lists(self) -> Sequence[str]:
        """Those of them whose value is a list."""
        return () if self.given is None else self.given.lists

    @classmethod
    def inherited(cls, name: str, parts: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The parts, by group, of a model that begins as one of the modality `name`, which has
        these: as the frames of clips begin as pictures. None where there is no such way."""
        return None

    def collate(self, items: Sequence[Item]) -> Batch:
        """A batch from items; the default stacks tensors and lists the rest."""
        return stack_items(items)

    def augment(self, batch: Batch, noise: Noise) -> Batch:
        """Random changes of a batch that leave its meaning, one draw per sample; default none."""
        return batch

    def unit(self, batch: Batch) -> tuple[str, Tensor]:
        """What the likelihood of data is divided by: its name, and how many of it a sample has,
        (B,)."""
        column = next(iter(batch.values()))
        return "sample", torch.ones(len(column))

    @abstractmethod
    def originals(self, batch: Batch) -> Outputs:
        """The data of a batch in the form of decoded outputs."""


group("modality", Modality, facts=True)
