"""Windows of long items: a stage that learns from parts of what the cache has whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Sampler

from anylatent.core.latents import LatentSpec, Noise, Stream
from anylatent.core.training.step_sampler import StepSampler


class Window(NamedTuple):
    """The entries `start` to before `stop` of an item of variable length."""

    item: int
    start: int
    stop: int


def check_windows(spec: LatentSpec) -> None:
    """Raises ValueError where latents have no axis of variable length that can be cut."""
    variable = {name: field for name, field in spec.fields.items() if field.variable}
    centred = [name for name, field in variable.items() if field.centred]
    if centred or not variable:
        what = f"'{centred[0]}' is centred over it" if centred else "there is none"
        raise ValueError(f"windows cut the axis of variable length, but {what}: {spec}")


def windows(items: Sequence[int], lengths: Tensor, size: int, noise: Noise) -> list[Window]:
    """A window of `size` entries of each item, at a place drawn uniformly among all there are.

    `lengths` (N,) are those of all items; one that is shorter than a window is taken whole. `noise`
    has one seed for each of `items`, which the window depends on alone.
    """
    found = []
    for item, u in zip(items, noise.uniform().tolist(), strict=True):
        length = int(lengths[item])
        start = int(u * max(1, length - size + 1))
        found.append(Window(item, start, min(start + size, length)))
    return found


class WindowSampler(Sampler[list[Window]]):
    """A window of each item of each step's batch, a function of the step as the batch is.

    `lengths` (N,) are those of the whole items. Indexed by its batches, a `LatentCache` reads no
    more than the windows.
    """

    def __init__(self, steps: StepSampler, lengths: Tensor, size: int) -> None:
        if size < 1:
            raise ValueError(f"a window has at least one entry, got size={size}")
        self.steps, self.lengths, self.size = steps, lengths, size

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Window]]:
        for items, (number, share) in zip(self.steps, self.steps.places(), strict=True):
            noise = Noise.of((self.steps.seed, Stream.WINDOWS, number), list(share))
            yield windows(items, self.lengths, self.size, noise)
