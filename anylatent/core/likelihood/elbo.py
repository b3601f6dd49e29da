"""The variational bound of a diffusion model in continuous time (2107.00630, eq. 11 to 18).

The model draws x at the lowest log-SNR from N(0, sigma²), then denoises step by step, and data from
p(data | x) at the highest, λ = high. By Jensen's inequality over the noisy path,

    -log p(data) <= KL(q(x_low | x0) | N(0, sigma²)) + Σ steps' KL + E[-log p(data | x_high)].

A step from λ to λ + dλ compares two Gaussians of one variance, whose means differ by what x0 and
x̂0 = denoise(x, t) differ; their divergence is dSNR/2·‖x0 - x̂0‖² with SNR = exp λ. In the limit of
many steps, and with the first term worked out,

    bound = ½·exp(low)·‖x0‖² + ½·∫ exp λ·E‖x0 - x̂0‖² dλ + E[-log p(data | x_high)],

the same for every schedule. Norms are those of the subspace: `latent.dim` degrees of freedom.

The first two bound the divergence of q(y | x0) from the model's own law of y = x_high/alpha =
x0 + ρ·noise, ρ = exp(-high/2); with the entropy of that noise, ½·dim·log(2πe·ρ²), they bound
-E log p(y): that is what `elbo` gives, and `log_likelihood` tells log p(y). The last term is the
data's own: see `rounding` and `data_likelihood`. The bound is met where x̂0 = E[x0 | x_t]
(2302.03792): its excess is ½·∫ exp λ·E‖x̂0 - E[x0 | x_t]‖² dλ, on average over the data.

The integral is estimated without bias from λ of the density ∝ SNR/(1 + SNR), the integrand of
data N(0, 1): weights are C·(1 + SNR), C = softplus(high) - softplus(low), one λ in each of as many
strata of equal probability as there are samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import softplus

from anylatent.core.denoisers import Estimate
from anylatent.core.latents import Latent, Noise, combine
from anylatent.core.process import LOG_SNR_LIMIT, Schedule, as_time

Reconstruct: TypeAlias = Callable[[Latent, float], Tensor]
"""y = x0 + ρ·noise, ρ → -log p(data | y) in nats, shape (B,)."""


@torch.no_grad()
def elbo(
    denoise: Estimate,
    schedule: Schedule,
    x0: Latent,
    noise: Noise,
    *,
    samples: int = 32,
    low: float | None = None,
    high: float = 14.0,
) -> Tensor:
    """An upper bound of -log p in nats, shape (B,), float64: the negative of the ELBO.

    It bounds the mean of -log p(y) over y = x0 + ρ·noise, ρ = exp(-high/2) (see the module).
    `samples` calls of the denoiser per sample. The integral runs over λ from `low`, by default the
    schedule's own end or -20, whichever is higher, to `high`.

    `denoise` must know x_t and t alone: one that recalls its estimate at another level, as
    `Denoiser.bind` lets it, has seen what it is judged on.

    A sample's bound depends neither on its neighbours nor on its padding. Raises ValueError for
    levels that the schedule does not have.
    """
    if samples < 1:
        raise ValueError(f"samples={samples}: the integral needs at least 1")
    low = max(float(schedule.log_snr(1.0)), -LOG_SNR_LIMIT) if low is None else low
    _check(schedule, low, high)
    total = as_time(0.5 * math.exp(low) * x0.dot(x0))
    levels, weights = _levels(noise.uniform(samples), low, high)
    for level, weight in zip(levels.unbind(1), weights.unbind(1), strict=True):
        t = schedule.time(level).to(x0.device)
        alpha, sigma = schedule.coefficients(t)
        gap = x0 - denoise(combine((alpha, x0), (sigma, noise.like(x0))), t)
        total = total + weight.to(total) * gap.dot(gap)
    return total + 0.5 * as_time(x0.dim) * math.log(2 * math.pi * math.e * math.exp(-high))


def _check(schedule: Schedule, low: float, high: float) -> None:
    ends = float(schedule.log_snr(1.0)), float(schedule.log_snr(0.0))
    if not (ends[0] - 1e-9 <= low < high <= ends[1] and -math.inf < low and high < math.inf):
        raise ValueError(
            f"low={low} and high={high}: want finite levels with low < high within "
            f"[{ends[0]:.4g}, {ends[1]:.4g}], the log-SNR of {type(schedule).__name__}"
        )


def _levels(uniform: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """λ in the strata and half their weight over `samples`; both (B, samples), float64."""
    samples = uniform.shape[1]
    share = (torch.arange(samples, dtype=torch.float64) + uniform) / samples
    ends = torch.tensor([low, high], dtype=torch.float64)
    first, last = softplus(ends, threshold=math.inf)  # exact at any level
    height = first + share * (last - first)
    levels = height + torch.log(-torch.expm1(-height))  # the inverse of softplus
    return levels, 0.5 * (last - first) * (1 + levels.exp()) / samples


def rounding(vectors: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Reconstruct:
    """-log p(tokens | y) by the exact posterior over the vectors of a codebook, a priori equal.

    p(token v | y_i) ∝ exp(-‖y_i - e_v‖²/(2ρ²)), each token for itself. `vectors` (V, D), `tokens`
    (B, L) long, `mask` (B, L) bool, True where there is a token. For latents of one field.
    """

    def nats(y: Latent, rho: float) -> Tensor:
        (points,) = (as_time(value) for value in y.parts.values())
        table = as_time(vectors.detach())
        scores = (points @ table.T - 0.5 * (table**2).sum(1)) / rho**2
        lost = torch.nn.functional.cross_entropy(scores.mT, tokens, reduction="none")
        return (lost if mask is None else torch.where(mask, lost, 0)).sum(1)

    return nats
