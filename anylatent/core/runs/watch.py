"""Samples that are not finite are never taken for some."""

from __future__ import annotations

import torch
from torch import Tensor

from anylatent.core.latents import Latent
from anylatent.core.modality import Outputs
from anylatent.core.solvers import Callback
from anylatent.core.support.files import UserError


class NotFinite(UserError):
    """Rows of a batch of samples, the step after which each was not finite for the first time, and
    the samples of the batches before it."""

    made: Outputs | None = None

    def __init__(self, rows: list[int], steps: list[int]) -> None:
        super().__init__(f"samples {rows} are not finite after the steps {steps}")
        self.rows, self.steps = rows, steps


class Watch:
    """A callback that also notes after which step, 1, 2, ..., each sample first had a number that
    is not finite, without waiting for the device. `inner` is called as it is."""

    def __init__(self, inner: Callback | None = None) -> None:
        self.inner = inner
        self.first: Tensor | None = None
        self.count = 0

    def __call__(self, index: int, t: Tensor, x: Latent) -> None:
        self.count += 1
        fine = _finite(x)
        now = torch.full_like(fine, self.count, dtype=torch.long)
        if self.first is None:
            self.first = torch.zeros_like(now)
        self.first = torch.where((self.first == 0) & ~fine, now, self.first)
        if self.inner is not None:
            self.inner(index, t, x)

    def check(self, z: Latent) -> None:
        """Raises NotFinite for samples that are not finite in the end."""
        rows = (~_finite(z)).nonzero().flatten().tolist()
        if rows:
            told = [0] * z.batch if self.first is None else self.first.tolist()
            raise NotFinite(rows, [told[row] or self.count for row in rows])


def _finite(x: Latent) -> Tensor:
    """Which samples have finite numbers only, (B,)."""
    each = [value.isfinite().flatten(1).all(1) for value in x.parts.values()]
    return torch.stack(each).all(0)
