"""First-order steps: DDIM, which is Euler at η = 0 and ancestral DDPM at η = 1.

    x_s = alpha_s·x0 + √(sigma_s² - up²)·noise_t + up·z,   up = η·sigma_s·√(1 - (ρ_s/ρ_t)²)

with noise_t = (x_t - alpha_t·x0)/sigma_t and ρ = sigma/alpha. η = 1 samples q(x_s | x_t, x0).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from anylatent.core.denoiser import Denoise
from anylatent.core.latent import Latent, combine
from anylatent.core.noise import Noise
from anylatent.core.registry import register
from anylatent.core.schedules import Schedule
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
        up = self.eta * sigma_s * (1 - ratio**2).clamp(min=0).sqrt()
        down = (sigma_s**2 - up**2).clamp(min=0).sqrt()
        return tabulate(times, down / sigma_t, alpha_s - alpha_t * down / sigma_t, up)

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


@register("solver", "ddpm")
def ddpm() -> DDIM:
    """Ancestral sampling with the posterior's own variance, DDPM's fixed small one (2006.11239)."""
    return DDIM(eta=1.0)
