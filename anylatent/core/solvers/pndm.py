"""PNDM (2202.09778): three pseudo Runge-Kutta steps, then the linear multistep of `plms`."""

from __future__ import annotations

from torch import Tensor

from anylatent.core.denoisers import Denoise
from anylatent.core.latents import Latent, Noise, combine
from anylatent.core.process import Schedule
from anylatent.core.registry import register
from anylatent.core.solvers.base import Solver, Step
from anylatent.core.solvers.exponential import ADAMS_BASHFORTH, PLMS
from anylatent.core.solvers.multistep import History
from anylatent.core.solvers.single_step import CLASSICAL, SingleStep

WARM_UP = len(ADAMS_BASHFORTH) - 1


@register("solver", "pndm")
class PNDM(Solver):
    """F-PNDM: DDIM's steps with the noise of Runge and Kutta's weights, later of `plms`.

    The first three steps evaluate at their start, twice in the middle of their time and at their
    end, and go by (1, 2, 2, 1)/6 of the noise there. Fewer steps are these alone.
    """

    order = 2
    evaluations = 4

    def __init__(self) -> None:
        self.first, self.later = SingleStep(CLASSICAL, 2, noises=True), PLMS()

    def cost(self, steps: int) -> int:
        if steps <= WARM_UP:
            return self.first.cost(steps)
        return self.evaluations * WARM_UP + steps - WARM_UP

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        first = self.first.plan(schedule, times[: WARM_UP + 1])
        return first + self.later.plan(schedule, times)[WARM_UP:]

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: History | None, noise: Noise | None
    ) -> tuple[Latent, History]:
        past, _, own = memory or History(())
        if len(past) >= WARM_UP:
            return self.later.step(denoise, x, step, memory, noise)
        found, x0 = self.first.advance(denoise, x, step)
        on_x, on_x0 = step.coefficients.noise
        noise_kept = combine((1.0, x), (on_x0 / on_x, x0))  # as PLMS keeps it
        return found, History((noise_kept, *past), own=(True, *own))
