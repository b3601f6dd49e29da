"""Denoisers in closed form, against which everything that samples is tested."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anylatent.core.denoisers.base import Denoiser
from anylatent.core.latents import Condition, Latent, combine
from anylatent.core.process import Schedule, Time, as_time


def constant(like: Latent, value: float) -> Latent:
    """The projection of the latent with one value everywhere (zero on centred fields)."""
    return like.map(lambda x: torch.full_like(x, value)).project()


class GaussianDenoiser(Denoiser):
    """E[x0 | x_t] for x0 ~ N(mean, std²) on the subspace.

    `mean` is a number, projected, or a latent. `std` is a number, or a latent of a batch of one
    (or B) with a deviation for each coordinate, equal over the points of a centred field.
    """

    def __init__(self, schedule: Schedule, mean: float | Latent, std: float | Latent) -> None:
        super().__init__()
        self.schedule, self.mean, self.std = schedule, mean, std

    def select(self, index: Tensor) -> GaussianDenoiser:
        own = [
            value.select(index) if isinstance(value, Latent) and value.batch > 1 else value
            for value in (self.mean, self.std)
        ]
        return GaussianDenoiser(self.schedule, *own)

    def _mean(self, like: Latent) -> Latent:
        return self.mean if isinstance(self.mean, Latent) else constant(like, self.mean)

    def _scale(self, x: Latent, factor: Callable[..., Tensor], *coefficients: Tensor) -> Latent:
        """x times factor(std², *coefficients), coordinate by coordinate."""
        if not isinstance(self.std, Latent):
            variance = torch.tensor(self.std**2, dtype=torch.float64)
            return factor(variance, *coefficients) * x

        def each(value: Tensor, std: Tensor) -> Tensor:
            shaped = (c.reshape(c.shape + (1,) * (value.ndim - c.ndim)) for c in coefficients)
            return value * factor(std.double() ** 2, *shaped).to(value)

        return x.map(each, self.std)

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        alpha, sigma = self.schedule.coefficients(as_time(t))
        mean = self._mean(x)
        residual = combine((1.0, x), (-alpha, mean))
        gain = lambda v, a, s: a * v / (a**2 * v + s**2)  # noqa: E731
        return mean + self._scale(residual, gain, alpha, sigma)

    def score(self, x: Latent, t: Time) -> Latent:
        """∇ log p_t(x)."""
        alpha, sigma = self.schedule.coefficients(as_time(t))
        residual = combine((1.0, x), (-alpha, self._mean(x)))
        return self._scale(residual, lambda v, a, s: -1 / (a**2 * v + s**2), alpha, sigma)

    def flow(self, x: Latent, t: Time, s: Time) -> Latent:
        """Where the probability-flow ODE takes x from time t to s."""
        alpha_t, sigma_t = self.schedule.coefficients(as_time(t))
        alpha_s, sigma_s = self.schedule.coefficients(as_time(s))
        mean = self._mean(x)

        def ratio(v: Tensor, a_t: Tensor, s_t: Tensor, a_s: Tensor, s_s: Tensor) -> Tensor:
            return ((a_s**2 * v + s_s**2) / (a_t**2 * v + s_t**2)).sqrt()

        residual = combine((1.0, x), (-alpha_t, mean))
        moved = self._scale(residual, ratio, alpha_t, sigma_t, alpha_s, sigma_s)
        return combine((alpha_s, mean), (1.0, moved))


class MixtureDenoiser(Denoiser):
    """E[x0 | x_t] for a mixture of Gaussians N(mean_k, std²) with given weights.

    `means`: one latent per component, of a batch of one, in the sizes of the samples (B of them
    are broadcast). `std` is common.
    """

    def __init__(
        self,
        schedule: Schedule,
        means: Sequence[Latent],
        std: float,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.schedule, self.means, self.std = schedule, list(means), std
        weights = weights or [1 / len(self.means)] * len(self.means)
        if len(weights) != len(self.means) or min(weights) <= 0:
            raise ValueError(f"need a positive weight for each of {len(self.means)} components")
        self.log_weights = torch.tensor([math.log(w / sum(weights)) for w in weights])

    def _residuals(self, x: Latent, alpha: Tensor) -> list[Latent]:
        expanded = [mean.map(lambda m, like: m.expand_as(like), x) for mean in self.means]
        return [combine((1.0, x), (-alpha, mean)) for mean in expanded]

    def responsibilities(self, x: Latent, t: Time) -> Tensor:
        """p(component | x_t), shape (B, K)."""
        alpha, sigma = self.schedule.coefficients(as_time(t))
        variance = alpha**2 * self.std**2 + sigma**2
        squares = torch.stack([r.dot(r) for r in self._residuals(x, alpha)], -1)
        variance = variance.to(squares)
        scores = -0.5 * squares / (variance[:, None] if variance.ndim else variance)
        return torch.softmax(scores + self.log_weights.to(scores), -1)

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        alpha, sigma = self.schedule.coefficients(as_time(t))
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        weights = self.responsibilities(x, t).unbind(-1)
        total = gain * x
        for weight, mean in zip(weights, self.means, strict=True):
            expanded = mean.map(lambda m, like: m.expand_as(like), x)
            total = combine((1.0, total), (weight * (1 - gain * alpha).to(weight), expanded))
        return total
