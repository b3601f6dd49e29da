"""What a solution costs, counted."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from anylatent.core.denoisers.base import Denoise, Estimate, as_denoise
from anylatent.core.latents import Latent
from anylatent.core.process import Time


class Counted(Denoise):
    """A denoiser of B samples that counts its work.

    `calls`: one after the other, whatever their size. `evaluations`: of each sample, (B,) int64.
    """

    def __init__(self, denoise: Estimate, batch: int) -> None:
        self.denoise, self.batch = as_denoise(denoise), batch
        self.index = torch.arange(batch)
        self.evaluations = torch.zeros(batch, dtype=torch.int64)
        self._calls = torch.zeros((), dtype=torch.int64)

    def __call__(self, x: Latent, t: Time) -> Latent:
        self._count()
        return self.denoise(x, t)

    @property
    def calls(self) -> int:
        return int(self._calls)

    @property
    def remembers(self) -> bool:
        return self.denoise.remembers

    def forgetful(self) -> Counted:
        return self._of(self.denoise.forgetful(), self.index)

    def variance(self, x: Latent, t: Time) -> tuple[Latent, Latent]:
        found = self.denoise.variance(x, t)
        self._count()
        return found

    def select(self, index: Tensor) -> Counted | None:
        chosen = self.denoise.select(index)
        return None if chosen is None else self._of(chosen, self.index[index])

    def _of(self, denoise: Denoise, index: Tensor) -> Counted:
        """Another view of it, or some of its samples; counted here too."""
        twin = copy(self)  # which shares the counts
        twin.denoise, twin.index = denoise, index
        return twin

    def _count(self) -> None:
        self._calls += 1
        self.evaluations += torch.bincount(self.index, minlength=self.batch)
