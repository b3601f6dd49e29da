"""DPM-Solver++ (2211.01095): exponential integrators in λ̃ = log(alpha/sigma) on x0.

    x_s = (sigma_s/sigma_t)·x_t + alpha_s·(1 - e^{-h})·D,   h = λ̃_s - λ̃_t

with D the value of x0 at the middle of the step, extrapolated from this point and the last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anylatent.core.denoiser import Denoise
from anylatent.core.latent import Latent, combine
from anylatent.core.noise import Noise
from anylatent.core.registry import register
from anylatent.core.schedules import Schedule
from anylatent.core.solvers.base import Solver, Step, tabulate


@register("solver", "dpmpp_2m")
class DPMpp2M(Solver):
    """DPM-Solver++ 2M: second order for one evaluation a step, from the last point's x0.

    The first step, a step after an infinite one, and the step to sigma = 0 are first order.
    """

    order = 2
    evaluations = 1

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        alpha, sigma = schedule.coefficients(times)
        half = 0.5 * schedule.log_snr(times)
        h = half.diff(dim=0)
        gain = alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1]  # alpha_s·(1 - e^{-h})
        last = torch.cat([torch.full_like(h[:1], torch.inf), h[:-1]])
        extra = torch.where(torch.isinf(h), 0.0, 0.5 * h / last)  # 1 / (2r)
        return tabulate(times, sigma[1:] / sigma[:-1], gain * (1 + extra), -gain * extra)

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Latent | None, noise: Noise | None
    ) -> tuple[Latent, Latent]:
        c_x, c_0, c_last = step.coefficients
        x0 = denoise(x, step.t)
        if memory is None or (isinstance(c_last, float) and c_last == 0):
            return combine((c_0, x0), (c_x, x)), x0
        return combine((c_0, x0), (c_x, x), (c_last, memory)), x0
