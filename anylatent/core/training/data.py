"""Batches as a function of the step, so that a run can stop and go on anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from anylatent.core.files import UserError
from anylatent.core.modality import Item
from anylatent.core.noise import Noise


class StepSampler(Sampler[list[int]]):
    """The indices of each step's batch: endless shuffled passes, from step `start` to `steps`.

    What step k holds depends on the seed alone. `batch` is the joint batch of all processes, of
    which process `rank` gets a contiguous share.
    """

    def __init__(
        self, size: int, batch: int, steps: int, start: int, seed: int, rank: int, world: int
    ) -> None:
        if batch % world:
            raise UserError(f"the batch of {batch} does not divide among {world} processes")
        self.size, self.batch, self.steps, self.start, self.seed = size, batch, steps, start, seed
        share = batch // world
        self.positions = range(rank * share, (rank + 1) * share)
        self._passes: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            yield [self._index(step * self.batch + position) for position in self.positions]

    def _index(self, draw: int) -> int:
        number, place = divmod(draw, self.size)
        if number not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k >= number - 1}
            order = Noise([(self.seed, number)]).uniform(self.size)[0].argsort()
            self._passes[number] = order.tolist()
        return self._passes[number][place]


def stack_items(items: Sequence[Item]) -> dict[str, object]:
    """Columns from items: tensors are stacked, numbers become tensors, the rest lists."""
    batch: dict[str, object] = {}
    for name in items[0]:
        column = [item[name] for item in items]
        if isinstance(column[0], Tensor):
            batch[name] = torch.stack(column)
        elif isinstance(column[0], (int, float)):
            batch[name] = torch.tensor(column)
        else:
            batch[name] = column
    return batch
