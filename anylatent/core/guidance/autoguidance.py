"""Autoguidance: away from a weaker model of the same data (2406.02507)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from anylatent.core.denoisers import Denoiser, Wrapper
from anylatent.core.guidance.base import STACK, Guided
from anylatent.core.latents import Condition, Latent
from anylatent.core.process import Time
from anylatent.core.registry import register
from anylatent.core.support.files import UserError


class Autoguidance(Guided):
    """x0 = x0_weak + scale·(x0 - x0_weak), both under one condition, else x0.

    `weak` is a smaller or less trained denoiser on the same latents and schedule; what both get
    wrong alike, and the weak one more, is corrected, without a condition too. Scale 1 is none.
    Without `weak` it is the denoiser itself. Interval and rescaling: see `Guided`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        weak: Denoiser | None = None,
        scale: float = 2.0,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(denoiser, sigma_min, sigma_max, rescale)
        self.weak, self.scale = weak, scale

    @property
    def entry_times(self) -> bool:
        return super().entry_times and (self.weak is None or self.weak.entry_times)

    def select(self, index: Tensor) -> Autoguidance | None:
        chosen = super().select(index)
        assert chosen is None or isinstance(chosen, Autoguidance)
        weak = None if self.weak is None else self.weak.select(index)
        if chosen is None or weak is self.weak:
            return chosen
        if weak is None:
            return None
        return chosen.having(weak=weak)

    def guides(self, cond: Condition | None) -> bool:
        return self.weak is not None and self.scale != 1

    def change(self, x: Latent, t: Tensor, cond: Condition | None) -> tuple[Latent, Latent]:
        assert self.weak is not None
        plain = self.plain(x, t, cond)
        return plain, (self.scale - 1) * (plain - self.weak(x, t, cond))


class OnlyConditions(Wrapper):
    """A denoiser that is told some conditions only, by name; it may know no others."""

    def __init__(self, denoiser: Denoiser, names: Sequence[str]) -> None:
        super().__init__(denoiser)
        also = (("estimate", denoiser.self_conditioned), ("given", denoiser.sees_given))
        self.names = {*names, *(name for name, reads in also if reads)}

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        if cond is not None:
            cond = cond.without(*(name for name in cond.values if name not in self.names))
        found: Latent = self.inner(x, t, cond)
        return found


@register("guidance", "autoguidance", parts=STACK)
def autoguidance(
    denoiser: Denoiser,
    scale: float = 2.0,
    weak: str | None = None,
    sigma_min: float = 0.0,
    sigma_max: float = math.inf,
    rescale: float = 0.0,
    load_denoiser: Callable[[str], Denoiser] | None = None,
) -> Autoguidance:
    """Away from the model of a weaker run, weak=RUN: x0_weak + scale·(x0 - x0_weak) (2406.02507).

    `load_denoiser` loads the denoiser of a run on the same latents.
    """
    if weak is not None and load_denoiser is None:
        raise UserError(
            f"guidance.weak={weak}: another run can guide samples of a finished one only; train "
            "without it, then give guidance=autoguidance guidance.weak=... to 'anylatent sample'"
        )
    found = None if weak is None or load_denoiser is None else load_denoiser(weak)
    return Autoguidance(denoiser, found, scale, sigma_min, sigma_max, rescale)
