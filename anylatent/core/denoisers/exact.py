"""Denoisers in closed form, against which everything that samples is tested."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from anylatent.core.denoisers.base import Denoiser
from anylatent.core.latents import Condition, Latent, combine, over
from anylatent.core.process import Schedule, Time, as_time


def constant(like: Latent, value: float) -> Latent:
    """The projection of the latent with one value everywhere (zero on centred fields)."""
    return like.map(lambda x: torch.full_like(x, value)).project()


def volume(values: Latent) -> Tensor:
    """The sum over degrees of freedom, (B,), of numbers that are equal over centred points."""
    total = torch.zeros(values.batch, dtype=torch.float64, device=values.device)
    for name, z in values.parts.items():
        mask = values.masks.get(name)
        z = z if mask is None else torch.where(over(mask, z), z, 0)
        count = values.lengths(name).double()
        share = (count - 1) / count if values.spec.fields[name].centred else 1.0
        total = total + share * z.double().flatten(1).sum(1)
    return total


def selected(value: float | Latent, index: Tensor) -> float | Latent:
    """The value for some samples, itself where it is the same for all."""
    return value.select(index) if isinstance(value, Latent) and value.batch > 1 else value


Measure = Callable[[Latent], Latent]
"""A linear map of latents, sample by sample, to latents of any space."""


def flatten(x: Latent) -> Tensor:
    """All numbers of each sample, (B, D), padding too."""
    return torch.cat([z.flatten(1) for z in x.parts.values()], 1)


def unflatten(numbers: Tensor, like: Latent) -> Latent:
    """Undoes `flatten`; the caller keeps to the subspace."""
    sizes = [z[0].numel() for z in like.parts.values()]
    pieces = zip(like.parts.items(), torch.split(numbers, sizes, 1), strict=True)
    return Latent({n: v.reshape(z.shape) for (n, z), v in pieces}, like.masks, like.spec)


def matrix(linear: Measure, like: Latent) -> Tensor:
    """The matrix (B, M, D) of a linear map of latents such as `like`, column by column."""
    unit = torch.eye(flatten(like).shape[1], dtype=like.dtype, device=like.device)
    columns = [linear(unflatten(row.expand(like.batch, -1), like).project()) for row in unit]
    return torch.stack([flatten(column) for column in columns], -1)


class ExactGaussian(Denoiser):
    """E[x0 | x_t] for x0 ~ N(mean, C) on the subspace; `mean` is a number, projected, or a latent.

    Exact for times (), (B,) and, where latents have entries, (B, T).
    """

    mean: float | Latent

    def residual(self, x: Latent, alpha: Tensor) -> Latent:
        """x - alpha·mean."""
        return combine((1.0, x), (-alpha, self.centre(x)))

    def centre(self, like: Latent) -> Latent:
        """The mean, for each sample of a batch."""
        if not isinstance(self.mean, Latent):
            return constant(like, self.mean)
        if self.mean.batch == like.batch:
            return self.mean
        return like.map(lambda x, mean: mean.expand_as(x), self.mean)

    @abstractmethod
    def select(self, index: Tensor) -> ExactGaussian: ...

    @abstractmethod
    def score(self, x: Latent, t: Time) -> Latent:
        """∇ log p_t(x)."""

    @abstractmethod
    def log_prob(self, x: Latent, t: Time) -> Tensor:
        """log p_t(x) on the subspace, (B,), in nats."""

    @abstractmethod
    def covariance(self, x: Latent) -> Latent:
        """C·x."""

    def posterior(
        self, measure: Measure, y: Latent, std: float, like: Latent
    ) -> tuple[Latent, Tensor]:
        """Mean, and covariance (B, D, D) of its `flatten`ed numbers, of x0 in the sizes of `like`
        given y = H·x0 + std·noise.

        `measure` is H, which its matrix is read from. With std = 0, as for a mask, it is exact.
        """
        seen, spread = matrix(measure, like), matrix(self.covariance, like)
        total = seen @ spread @ seen.mT
        total = total + std**2 * torch.eye(total.shape[1], dtype=total.dtype, device=total.device)
        gain = spread @ seen.mT @ torch.linalg.pinv(total, hermitian=True)
        mean = self.centre(like)
        missed = gain @ flatten(y - measure(mean))[..., None]
        return mean + unflatten(missed[..., 0], like), spread - gain @ seen @ spread


class GaussianDenoiser(ExactGaussian):
    """E[x0 | x_t] for x0 ~ N(mean, std²) on the subspace.

    `mean` is a number, projected, or a latent. `std` is a number, or a latent of a batch of one
    (or B) with a deviation for each coordinate, equal over the points of a centred field.
    """

    def __init__(self, schedule: Schedule, mean: float | Latent, std: float | Latent) -> None:
        super().__init__()
        self.schedule, self.mean, self.std = schedule, mean, std

    def select(self, index: Tensor) -> GaussianDenoiser:
        twin = copy(self)
        twin.mean, twin.std = (selected(value, index) for value in (self.mean, self.std))
        return self if twin.mean is self.mean and twin.std is self.std else twin

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
        gain = lambda v, a, s: a * v / (a**2 * v + s**2)  # noqa: E731
        return self.centre(x) + self._scale(self.residual(x, alpha), gain, alpha, sigma)

    def covariance(self, x: Latent) -> Latent:
        return self._scale(x, lambda v: v)

    def score(self, x: Latent, t: Time) -> Latent:
        alpha, sigma = self.schedule.coefficients(as_time(t))
        residual = self.residual(x, alpha)
        return self._scale(residual, lambda v, a, s: -1 / (a**2 * v + s**2), alpha, sigma)

    def log_prob(self, x: Latent, t: Time) -> Tensor:
        alpha, sigma = self.schedule.coefficients(as_time(t))
        nats = lambda v, a, s: (2 * math.pi * (a**2 * v + s**2)).log()  # noqa: E731
        sizes = volume(self._scale(x.map(torch.ones_like), nats, alpha, sigma))
        return 0.5 * (self.residual(x, alpha).dot(self.score(x, t)).double() - sizes)

    def flow(self, x: Latent, t: Time, s: Time) -> Latent:
        """Where the probability-flow ODE takes x from time t to s."""
        alpha_t, sigma_t = self.schedule.coefficients(as_time(t))
        alpha_s, sigma_s = self.schedule.coefficients(as_time(s))

        def ratio(v: Tensor, a_t: Tensor, s_t: Tensor, a_s: Tensor, s_s: Tensor) -> Tensor:
            return ((a_s**2 * v + s_s**2) / (a_t**2 * v + s_t**2)).sqrt()

        residual = self.residual(x, alpha_t)
        moved = self._scale(residual, ratio, alpha_t, sigma_t, alpha_s, sigma_s)
        return combine((alpha_s, self.centre(x)), (1.0, moved))


class MixtureDenoiser(Denoiser):
    """E[x0 | x_t] for a mixture of Gaussians N(mean_k, std_k²) with given weights.

    `means`: one latent per component, of a batch of one, in the sizes of the samples (B of them
    are broadcast). `std` is common, or one per component. `of` takes any exact Gaussians.
    """

    def __init__(
        self,
        schedule: Schedule,
        means: Sequence[Latent],
        std: float | Sequence[float],
        weights: Sequence[float] | None = None,
    ) -> None:
        stds = std if isinstance(std, Sequence) else [std] * len(means)
        pairs = zip(means, stds, strict=True)
        self._begin([GaussianDenoiser(schedule, mean, own) for mean, own in pairs], weights)

    @classmethod
    def of(
        cls, components: Sequence[ExactGaussian], weights: Sequence[float] | None = None
    ) -> MixtureDenoiser:
        """A mixture of Gaussians with means and covariances of their own, on one schedule."""
        mixture = cls.__new__(cls)
        mixture._begin(components, weights)
        return mixture

    def _begin(self, components: Sequence[ExactGaussian], weights: Sequence[float] | None) -> None:
        super().__init__()
        weights = weights or [1 / len(components)] * len(components)
        if len(weights) != len(components) or min(weights) <= 0:
            raise ValueError(f"need a positive weight for each of {len(components)} components")
        self.schedule = components[0].schedule
        self.components = list(components)
        self.log_weights = torch.tensor([math.log(w / sum(weights)) for w in weights])

    def select(self, index: Tensor) -> MixtureDenoiser:
        twin = copy(self)
        twin.components = [component.select(index) for component in self.components]
        pairs = zip(twin.components, self.components, strict=True)
        return self if all(new is old for new, old in pairs) else twin

    def log_probs(self, x: Latent, t: Time) -> Tensor:
        """log(weight_k·p_t(x | component k)), shape (B, K)."""
        each = torch.stack([component.log_prob(x, t) for component in self.components], -1)
        return each + self.log_weights.to(each)

    def log_prob(self, x: Latent, t: Time) -> Tensor:
        """log p_t(x) on the subspace, (B,), in nats."""
        return self.log_probs(x, t).logsumexp(-1)

    def responsibilities(self, x: Latent, t: Time) -> Tensor:
        """p(component | x_t), shape (B, K)."""
        return torch.softmax(self.log_probs(x, t), -1)

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        weights = self.responsibilities(x, t).unbind(-1)
        return combine(*((w, c(x, t)) for w, c in zip(weights, self.components, strict=True)))
