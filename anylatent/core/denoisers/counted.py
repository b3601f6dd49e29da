"""What a solution costs, counted."""

from __future__ import annotations

from copy import copy
from functools import partial

import torch
from torch import Tensor

from anylatent.core.denoisers.base import NO_VARIANCE, Denoise, restrict
from anylatent.core.latents import Latent
from anylatent.core.process import Time


class Counted:
    """A denoiser of B samples that counts its work.

    `calls`: one after the other, whatever their size. `evaluations`: of each sample, (B,) int64.
    """

    def __init__(self, denoise: Denoise, batch: int) -> None:
        self.denoise, self.batch = denoise, batch
        self.evaluations = torch.zeros(batch, dtype=torch.int64)
        self._calls = torch.zeros((), dtype=torch.int64)

    def __call__(self, x: Latent, t: Time) -> Latent:
        return self._call(self.denoise, torch.arange(self.batch), x, t)

    @property
    def calls(self) -> int:
        return int(self._calls)

    @property
    def remembers(self) -> bool:
        return getattr(self.denoise, "remembers", False)

    @property
    def forgetful(self) -> Counted:
        """The denoiser without what it recalls, as far as it can do without; counted here too."""
        twin = copy(self)  # which shares the counts
        twin.denoise = getattr(self.denoise, "forgetful", self.denoise)
        return twin

    def with_variance(self, x: Latent, t: Time) -> tuple[Latent, Latent]:
        ask = getattr(self.denoise, "with_variance", None)
        if ask is None:
            raise ValueError(NO_VARIANCE)
        self._count(torch.arange(self.batch))
        found: tuple[Latent, Latent] = ask(x, t)
        return found

    def select(self, index: Tensor) -> Denoise | None:
        chosen = restrict(self.denoise, index)
        return None if chosen is None else partial(self._call, chosen, index)

    def _call(self, denoise: Denoise, index: Tensor, x: Latent, t: Time) -> Latent:
        self._count(index)
        return denoise(x, t)

    def _count(self, index: Tensor) -> None:
        self._calls += 1
        self.evaluations += torch.bincount(index, minlength=self.batch)
