"""Batches as a function of the step, so that a run can stop and go on anywhere."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import Sampler

from anylatent.core.latents import Noise
from anylatent.core.support.files import UserError


def check_shares(batch: int, world: int, parts: int) -> None:
    """Raises UserError where a batch is not so many times some whole items."""
    if batch % (world * parts):
        among = f"{world} processes" + (f" and {parts} parts of each" if parts > 1 else "")
        raise UserError(f"the batch of {batch} does not divide among {among}")


class StepSampler(Sampler[list[int]]):
    """The indices of each step's batch: endless shuffled passes, from step `start` to `steps`.

    What step k holds depends on the seed alone. `batch` is the joint batch of all processes, of
    which process `rank` gets a contiguous share, one after the other in `parts` of equal size.

    With `lengths` (size,), the number of points or tokens of each item, batches are made of nearly
    equal lengths, so that almost nothing is padding: a pass shuffles the items, sorts them by
    length, cuts them into batches and shuffles those. The remainder, fewer items than a batch and
    others in each pass, is left out. Data smaller than a batch are drawn as without lengths.
    """

    def __init__(
        self,
        size: int,
        batch: int,
        steps: int,
        start: int,
        seed: int,
        rank: int,
        world: int,
        lengths: Tensor | None = None,
        parts: int = 1,
    ) -> None:
        check_shares(batch, world, parts)
        if lengths is not None and lengths.shape != (size,):
            raise ValueError(f"lengths of shape {tuple(lengths.shape)} for {size} items")
        self.size, self.batch, self.steps, self.start, self.seed = size, batch, steps, start, seed
        self.lengths = lengths if size >= batch else None
        first, share = rank * (batch // world), batch // (world * parts)
        starts = [first + part * share for part in range(parts)]
        self.shares = [range(start, start + share) for start in starts]
        self._passes: dict[int, list[int]] = {}
        self._buckets: tuple[int, Tensor] | None = None  # of one pass

    def __len__(self) -> int:
        return max(0, self.steps - self.start) * len(self.shares)

    def places(self) -> Iterator[tuple[int, range]]:
        """The step of each batch of indices, and their places in its joint batch."""
        for step in range(self.start, self.steps):
            for share in self.shares:
                yield step, share

    def __iter__(self) -> Iterator[list[int]]:
        for step, share in self.places():
            if self.lengths is not None:
                yield self._bucket(step, self.lengths)[share.start : share.stop].tolist()
            else:
                yield [self._index(step * self.batch + position) for position in share]

    def _bucket(self, step: int, lengths: Tensor) -> Tensor:
        """The joint batch of a step, (batch,)."""
        number, place = divmod(step, self.size // self.batch)
        if self._buckets is None or self._buckets[0] != number:
            noise = Noise([(self.seed, number)])
            whole = self.size // self.batch * self.batch
            order = noise.uniform(self.size)[0].argsort()[:whole]
            batches = order[lengths[order].argsort(stable=True)].view(-1, self.batch)
            self._buckets = number, batches[noise.uniform(len(batches))[0].argsort()]
        return self._buckets[1][place]

    def _index(self, draw: int) -> int:
        number, place = divmod(draw, self.size)
        if number not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k >= number - 1}
            order = Noise([(self.seed, number)]).uniform(self.size)[0].argsort()
            self._passes[number] = order.tolist()
        return self._passes[number][place]
