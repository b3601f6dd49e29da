"""Where a solution begins that does not begin from noise alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anylatent.core.latents import Latent, Noise, combine
from anylatent.core.process import Grid, Schedule, Time


@dataclass(frozen=True, eq=False)
class Start:
    """A solution that begins at a time t in (0, 1], of shape (), (B,) or (B, T).

    From x_t as it is, `x`, or from data, `x0`, to which noise is added: SDEdit (2108.01073).
    Raises ValueError unless exactly one of them is given.
    """

    t: Time
    x: Latent | None = None
    x0: Latent | None = None

    def __post_init__(self) -> None:
        if (self.x is None) == (self.x0 is None):
            raise ValueError("a start is x, or x0 to which noise is added: give one of the two")

    def state(self, schedule: Schedule, noise: Noise) -> Latent:
        """x_t; of x0 it is alpha(t)·x0 + sigma(t)·noise, whatever the solver."""
        if self.x is not None:
            return self.x
        assert self.x0 is not None
        return combine(
            (schedule.alpha(self.t), self.x0), (schedule.sigma(self.t), noise.like(self.x0))
        )

    def times(self, grid: Grid, schedule: Schedule, steps: int) -> Tensor:
        """The `steps` that are left: times from t to 0."""
        return grid.below(schedule, self.t, steps)
