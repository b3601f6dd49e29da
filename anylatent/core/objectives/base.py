"""Training objectives: one number per sample to be minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from anylatent.core.latents import Condition, Latent, Noise
from anylatent.core.objectives.weightings import Weighting
from anylatent.core.process import Schedule, Times
from anylatent.core.registry import group


class Objective(nn.Module, ABC):
    """(denoiser, x0, cond, noise) → loss per sample, shape (B,).

    `times` is the law of the noise levels that it trains at. `tells` names what it tells the
    denoiser beside x_t: "estimate", its own last one, or "given", which entries are known.
    """

    times: Times
    tells: frozenset[str] = frozenset()

    @abstractmethod
    def forward(
        self, denoiser: Any, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor: ...

    def check(self, schedule: Schedule) -> None:
        """Raises ValueError where it can't train a model on this schedule."""
        if schedule.learned is not None:
            raise ValueError(
                f"{type(self).__name__} would move a learned schedule to the easiest noise levels: "
                "use objective=denoising weighting=elbo, or another schedule"
            )


group("objective", Objective, offers={"times": Times, "weighting": Weighting})
