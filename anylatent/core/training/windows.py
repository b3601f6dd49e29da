"""Windows of long items: a stage that learns from parts of what the cache has whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Sampler

from anylatent.core.latents import LatentSpec, Noise, Stream
from anylatent.core.support.columns import Window
from anylatent.core.training.step_sampler import StepSampler


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


def windowed(
    steps: StepSampler, lengths: Tensor | None, size: int | None, singles: float = 0.0
) -> Sampler[Any]:
    """Windows of this size where items have lengths, whole items without a size."""
    if size is None or lengths is None:
        return steps
    return WindowSampler(steps, lengths, size, singles)


class WindowSampler(Sampler[list[Window]]):
    """A window of each item of each step's batch, a function of the step as the batch is.

    `lengths` (N,) are those of the whole items. A share `singles` of the steps has windows of one
    entry. Indexed by its batches, a `LatentCache` reads no more than the windows.
    """

    def __init__(
        self, steps: StepSampler, lengths: Tensor, size: int, singles: float = 0.0
    ) -> None:
        if size < 1:
            raise ValueError(f"a window has at least one entry, got size={size}")
        self.steps, self.lengths, self.size, self.singles = steps, lengths, size, singles

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Window]]:
        for items, (number, share) in zip(self.steps, self.steps.places(), strict=True):
            noise = Noise.of((self.steps.seed, Stream.WINDOWS, number), list(share))
            single = self.singles > 0 and float(noise.apart().shared_uniform()) < self.singles
            yield windows(items, self.lengths, 1 if single else self.size, noise)
