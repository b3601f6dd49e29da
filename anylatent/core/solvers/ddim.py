"""First-order steps: DDIM, which is Euler at η = 0 and ancestral DDPM at η = 1.

    x_s = alpha_s·x0 + √(sigma_s² - up²)·noise_t + up·z,   up = η·sigma_s·√(1 - (ρ_s/ρ_t)²)

with noise_t = (x_t - alpha_t·x0)/sigma_t and ρ = sigma/alpha. η = 1 samples q(x_s | x_t, x0).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoise
from anylatent.core.latents import Latent, Noise, combine
from anylatent.core.process import Schedule
from anylatent.core.registry import register
from anylatent.core.solvers.base import Solver, Step, tabulate


@register("solver", "ddim")
class DDIM(Solver):
    """DDIM (2010.02502): deterministic at `eta` = 0, ancestral at 1."""

    order = 1
    evaluations = 1

    def __init__(self, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta}")
        self.eta = eta

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        alpha, sigma = schedule.coefficients(times)
        (alpha_t, alpha_s), (sigma_t, sigma_s) = (alpha[:-1], alpha[1:]), (sigma[:-1], sigma[1:])
        ratio = alpha_t * sigma_s / (alpha_s * sigma_t)
        spread = (1 - ratio**2).clamp(min=0).sqrt()
        up = self.eta * sigma_s * spread
        down = (sigma_s**2 - up**2).clamp(min=0).sqrt()
        ups = self.ups(up, spread, alpha, sigma)
        return tabulate(times, down / sigma_t, alpha_s - alpha_t * down / sigma_t, *ups)

    def ups(self, up: Tensor, spread: Tensor, alpha: Tensor, sigma: Tensor) -> list[Tensor]:
        """What fresh noise is multiplied by; `up` keeps the deviation at sigma."""
        return [up]

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Any, noise: Noise | None
    ) -> tuple[Latent, None]:
        c_x, c_0, up = step.coefficients
        x0 = denoise(x, step.t)
        if self.eta == 0 or noise is None:
            return combine((c_0, x0), (c_x, x)), None
        return combine((c_0, x0), (c_x, x), (up, noise.like(x))), None


@register("solver", "euler")
def euler() -> DDIM:
    """Euler's method in sigma/alpha, which is DDIM without noise (2010.02502)."""
    return DDIM(eta=0.0)


@register("solver", "euler_ancestral")
def euler_ancestral(eta: float = 1.0) -> DDIM:
    """Euler's method down to √(sigma_s² - up²), and fresh noise up to sigma_s: DDIM with noise.

    On schedules with alpha = 1, as in 2206.00364, `up` is the familiar
    η·√(sigma_s²·(sigma_t² - sigma_s²)/sigma_t²).
    """
    return DDIM(eta)


class Large(DDIM):
    """Ancestral steps with the larger of DDPM's fixed variances (2006.11239).

    The mean is that of q(x_s | x_t, x0), the variance that of x_s given x_t for data N(0, 1),

        (sigma_t² - (alpha_t/alpha_s)²·sigma_s²)·(alpha_s² + sigma_s²)/(alpha_t² + sigma_t²),

    which is β on a variance-preserving schedule. Exact for such data, it is too much for others by
    what they know of x0, but at sigma = 0, where no noise is added.
    """

    def __init__(self) -> None:
        super().__init__(eta=1.0)

    def ups(self, up: Tensor, spread: Tensor, alpha: Tensor, sigma: Tensor) -> list[Tensor]:
        return [large_deviation(spread, alpha, sigma)]


def large_deviation(spread: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The deviation of `Large`; none at sigma = 0."""
    size = (alpha**2 + sigma**2).sqrt()
    return torch.where(sigma[1:] == 0, 0.0, sigma[:-1] * spread * size[1:] / size[:-1])


class Learned(DDIM):
    """Ancestral steps whose variance the model says: `small` and `large` are its bounds.

    log variance = v·log large + (1 - v)·log small (2102.09672), v from `denoise.variance`.
    Raises ValueError for a denoiser that has none.
    """

    asks_variance = True

    def __init__(self) -> None:
        super().__init__(eta=1.0)

    def ups(self, up: Tensor, spread: Tensor, alpha: Tensor, sigma: Tensor) -> list[Tensor]:
        wider = large_deviation(spread, alpha, sigma) / up
        return [up, torch.where(up == 0, 0.0, wider.log())]

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Any, noise: Noise | None
    ) -> tuple[Latent, None]:
        c_x, c_0, up, wider = step.coefficients
        x0, between = denoise.variance(x, step.t)
        found = combine((c_0, x0), (c_x, x))
        if noise is None or (isinstance(up, float) and up == 0):
            return found, None
        drawn = noise.like(x).map(lambda z, v: z * v.exp(), combine((wider, between)))
        return combine((1.0, found), (up, drawn)), None


VARIANCES = {"small": lambda: DDIM(eta=1.0), "large": Large, "learned": Learned}


@register("solver", "ddpm")
def ddpm(variance: str = "small") -> DDIM:
    """Ancestral sampling with the posterior's variance, that for N(0, 1) data (2006.11239), or one
    that a model with denoiser=learned_variance has learned."""
    if variance not in VARIANCES:
        raise ValueError(f"variance must be {', '.join(VARIANCES)}, got {variance}")
    return VARIANCES[variance]()
