"""How samples are drawn, as one object that everything on the way hands on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from anylatent.core.denoisers import Denoiser
from anylatent.core.generators.start import Start
from anylatent.core.inverse import Known
from anylatent.core.latents import Noise
from anylatent.core.process import Grid
from anylatent.core.solvers import Solver

Guidance: TypeAlias = Callable[[Denoiser, Noise], Denoiser]
"""What makes a denoiser a guided one, for samples with this noise: what it draws from it as it is
made stays the same along a solution."""


@dataclass(frozen=True)
class Sampler:
    """A solver, a grid of so many steps, guidance of the denoiser, a temperature of its tokens,
    what is known of the samples, and where solutions start: from noise, or from a `Start` with the
    steps that are left.

    A generator that solves nothing reads the temperature alone.
    """

    solver: Solver
    grid: Grid
    steps: int
    guidance: Guidance | None = None
    temperature: float | None = None
    start: Start | None = None
    known: Known | None = None

    def around(self, denoiser: Denoiser, noise: Noise) -> Denoiser:
        """The denoiser that is solved for samples with this noise: at this temperature, then
        guided, then kept to what is known. What guidance draws moves no draw of the solution's."""
        if self.temperature is not None:
            denoiser = denoiser.tempered(self.temperature)
        if self.guidance is not None:
            denoiser = self.guidance(denoiser, noise.apart())
        return denoiser if self.known is None else self.known.around(denoiser)
