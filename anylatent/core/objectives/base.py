"""Training objectives: one number per sample to be minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from anylatent.core.latents import Condition, Latent, Masking, Noise
from anylatent.core.objectives.weightings import Weighting
from anylatent.core.process import Schedule, Times
from anylatent.core.registry import group


class Objective(nn.Module, ABC):
    """(denoiser, x0, cond, noise) → loss per sample, shape (B,).

    `times` is the law of the noise levels that it trains at. `tells` names what it tells the
    denoiser beside x_t: "estimate", its own last one; "given", which entries are known; "region",
    which other parts are; "times", that each entry has one of its own. `masking` draws what is
    given of a sample, None where nothing ever is.
    """

    times: Times
    tells: frozenset[str] = frozenset()
    masking: Masking | None = None

    @abstractmethod
    def forward(
        self, denoiser: Any, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor: ...

    def draw_times(
        self, x0: Latent, noise: Noise, schedule: Schedule, entries: int | None = None
    ) -> Tensor:
        """Times of the law, (B,), or (B, T) for T `entries`, where x0 lies.

        Raises ValueError for a law that gives others, which would meet the wrong errors.
        """
        own = () if entries is None else (entries,)
        t = self.times.sample(noise, schedule, *own)
        shape = (x0.batch, *own)
        if t.shape != shape:
            raise ValueError(
                f"{type(self.times).__name__} gives times of shape {tuple(t.shape)}, wanted {shape}"
                "; a time for each entry is objective=denoising objective.forcing=true"
            )
        return t.to(x0.device, non_blocking=True)

    def check(self, schedule: Schedule) -> None:
        """Raises ValueError where it can't train a model on this schedule."""
        if schedule.learned is not None:
            raise ValueError(
                f"{type(self).__name__} would move a learned schedule to the easiest noise levels: "
                "use objective=denoising weighting=elbo, or another schedule"
            )


group("objective", Objective, offers={"times": Times, "weighting": Weighting})
