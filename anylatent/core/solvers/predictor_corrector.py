"""Predictor and corrector (2011.13456): any solver's step, then Langevin steps at its end.

Langevin's equation at time s, dx = score·dτ + √2·dw in units of sigma², is one of Ornstein and
Uhlenbeck where x0 is held fast, whose solution is exact for any length:

    x' = c·x + (1 - c)·alpha·x0 + sigma·√(1 - c²)·z,   c = exp(-length).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoise
from anylatent.core.latents import Coefficient, Latent, Noise, combine
from anylatent.core.process import Schedule
from anylatent.core.registry import register
from anylatent.core.solvers.adaptive import DormandPrince
from anylatent.core.solvers.base import Solver, Step, tabulate
from anylatent.core.solvers.ddim import DDIM
from anylatent.core.solvers.multistep import Multistep
from anylatent.core.solvers.pndm import PNDM


class Parts(NamedTuple):
    """The base's step; and the coefficients of x, x0 and noise in a correction, if there is any."""

    base: Step
    correction: tuple[Coefficient, Coefficient, Coefficient] | None


@register("solver", "predictor_corrector", parts={"base": ("solver", "ddpm")})
class PredictorCorrector(Solver):
    """`corrections` Langevin steps after each step of `base`, at its end, where sigma > 0.

    Each has the length `rate` times that of the step in log(alpha/sigma): their sum does not
    depend on the number of steps, and the law of the samples tends to that of the data with it.
    (The paper's steps are 2·r² long, r its signal-to-noise ratio, by norms over the whole batch.)
    A base may remember x0, but not the noise, which a correction makes another, nor correct x.
    """

    def __init__(self, base: Solver | None = None, corrections: int = 1, rate: float = 1.0) -> None:
        if corrections < 1 or rate <= 0:
            raise ValueError(f"need corrections >= 1 and rate > 0, got {corrections} and {rate}")
        if _remembers_noise(base):
            raise ValueError(
                f"a correction changes the noise, which {type(base).__name__} with these settings "
                "remembers: give predictor_corrector another base, such as ddpm, dpmpp_2m or heun"
            )
        self.base, self.corrections, self.rate = base or DDIM(eta=1.0), corrections, rate
        self.order, self.tolerance = 1, self.base.tolerance
        self.evaluations = self.base.evaluations + corrections

    @property
    def stochastic(self) -> bool:
        return True

    def cost(self, steps: int) -> int:
        return self.base.cost(steps) + self.corrections * (steps - 1)

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        alpha, sigma = schedule.coefficients(times[1:])
        c = torch.exp(-0.5 * self.rate * schedule.log_snr(times).diff(dim=0))
        rows = tabulate(times, c, alpha * (1 - c), sigma * (1 - c**2).sqrt())
        return [
            Step(step.t, step.s, Parts(step, tuple(row.coefficients) if noisy.any() else None))
            for step, row, noisy in zip(
                self.base.plan(schedule, times), rows, sigma > 0, strict=True
            )
        ]

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Any, noise: Noise | None
    ) -> tuple[Latent, Any]:
        parts: Parts = step.coefficients
        x, memory = self.base.step(denoise, x, parts.base, memory, noise)
        if parts.correction is None or noise is None:
            return x, memory
        c_x, c_0, up = parts.correction
        for _ in range(self.corrections):
            x = combine((c_x, x), (c_0, denoise(x, step.s)), (up, noise.like(x)))
        return x, memory


def _remembers_noise(base: Solver | None) -> bool:
    """Whether what it keeps of a step is more than x0: a value that x_t is read for too, a slope
    at x_t, or a correction of it."""
    if not isinstance(base, Multistep):
        return isinstance(base, (PNDM, DormandPrince))
    if base.corrector:
        return True
    some = torch.tensor([0.6, 0.8], dtype=torch.float64)
    return bool(base.frame(some, some.flip(0)).on_x.any())
