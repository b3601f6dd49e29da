"""A Gaussian whose entries know of one another, and what is known of it when it is measured.

    x0 ~ N(mean, C),   C = std²·1 + Σ_k variance_k·e_k·e_kᵀ   on the subspace

A diagonal Gaussian can't see what a mask couples; with a few spikes e_k, any latents of unit norm,
it can, on every spec, padded and centred too. The spikes are made orthonormal once, q_k with
variances v_k. For x_t = α·x0 + σ·noise with α, σ of shape (), (B,) or, one for each entry, (B, T),

    Cov(x_t) = D + W·Wᵀ,   D = α²·std² + σ²,   W_k = √v_k·α·q_k,

whose inverse is that of D and of the small matrix 1 + Wᵀ·D⁻¹·W (Woodbury), exact at σ = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from anylatent.core.denoisers.exact import ExactGaussian, flatten, selected, unflatten, volume
from anylatent.core.latents import Condition, Latent, Noise, combine
from anylatent.core.process import Schedule, Time, as_time


class SpikedGaussian(ExactGaussian):
    """E[x0 | x_t] for x0 ~ N(mean, std²·1 + Σ variance_k·e_k·e_kᵀ); see the module.

    `spikes`: one latent e_k for each of `variances`, of a batch of one (or B, where samples differ
    in size), of unit norm and on the subspace. `entry_times` says whether completion may give
    entries times of their own. Raises ValueError for spikes off the unit sphere.
    """

    def __init__(
        self,
        schedule: Schedule,
        mean: float | Latent,
        std: float,
        spikes: Sequence[Latent],
        variances: Sequence[float],
        entry_times: bool = True,
    ) -> None:
        super().__init__()
        if not std > 0 or len(spikes) != len(variances) or min(variances, default=0) <= 0:
            raise ValueError(
                f"need std > 0 and a positive variance for each of {len(spikes)} > 0 spikes, got "
                f"std={std} and variances={list(variances)}"
            )
        for spike in spikes:
            off = max(
                float((spike.norm() - 1).abs().max()), float(spike.mse(spike.project()).max())
            )
            if off > 1e-6:
                raise ValueError(f"a spike is no unit vector of its subspace: off by {off:.3g}")
        self.schedule, self.mean, self.std = schedule, mean, std
        self.like = spikes[0]
        rows = torch.stack([flatten(spike) for spike in spikes], 1).double()
        self._orthonormal(rows * rows.new_tensor(variances).sqrt()[:, None])
        self.timed = entry_times

    def _orthonormal(self, rows: Tensor) -> None:
        """q (B or 1, K, D) and v (B or 1, K) of the rows √variance_k·e_k."""
        values, vectors = torch.linalg.eigh(rows @ rows.mT)
        known = values > 1e-12 * values.amax(-1, keepdim=True)
        scale = torch.where(known, values, 1.0).rsqrt() * known
        self.axes, self.variances = scale[..., None] * (vectors.mT @ rows), values.clamp(min=0)

    @property
    def entry_times(self) -> bool:
        return self.timed and self.like.spec.has_entries

    def select(self, index: Tensor) -> SpikedGaussian:
        twin = copy(self)
        twin.mean = selected(self.mean, index)
        if self.like.batch > 1:
            twin.like, twin.axes = self.like.select(index), self.axes[index]
            twin.variances = self.variances[index]
        return self if twin.mean is self.mean and twin.like is self.like else twin

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        alpha, _ = self.schedule.coefficients(as_time(t))
        pull = self._noisy(x, t).solve(flatten(self.residual(x.to(torch.float64), alpha)))
        signal = combine((alpha, unflatten(pull, x.to(torch.float64))))
        return combine((1.0, self.centre(x)), (1.0, self.covariance(signal).to(x.dtype)))

    def covariance(self, x: Latent) -> Latent:
        spread = self.variances[..., None] * self._along(x)[..., None] * self.axes
        return combine((self.std**2, x), (1.0, unflatten(spread.sum(1).to(x.dtype), x)))

    def score(self, x: Latent, t: Time) -> Latent:
        wide, (alpha, _) = x.to(torch.float64), self.schedule.coefficients(as_time(t))
        pull = self._noisy(x, t).solve(flatten(self.residual(wide, alpha)))
        return unflatten(-pull, wide).to(x.dtype)

    def log_prob(self, x: Latent, t: Time) -> Tensor:
        wide, (alpha, _) = x.to(torch.float64), self.schedule.coefficients(as_time(t))
        noisy, residual = self._noisy(x, t), flatten(self.residual(wide, alpha))
        sizes = volume(unflatten((2 * math.pi * noisy.floor).log(), wide)) + noisy.small.logdet()
        return -0.5 * ((residual * noisy.solve(residual)).sum(-1) + sizes)

    def flow(self, x: Latent, t: Time, s: Time) -> Latent:
        """Where the probability-flow ODE takes x from time t to s, of shape () or (B,).

        Raises ValueError for times per entry, of which there is no closed form.
        """
        now, then = (self.schedule.coefficients(as_time(time)) for time in (t, s))
        if now[0].ndim > 1 or then[0].ndim > 1:
            raise ValueError("the flow at times for each entry has no closed form: solve it")
        wide = x.to(torch.float64)
        residual, centre = self.residual(wide, now[0]), combine((then[0], self.centre(wide)))
        variances = torch.cat([torch.zeros_like(self.variances[:, :1]), self.variances], 1)
        width_t, width_s = (self._widths(variances, *pair) for pair in (now, then))
        ratio = width_s / width_t
        more = (ratio[:, 1:] - ratio[:, :1]) * self._along(residual)
        moved = ratio[:, :1] * flatten(residual) + (more[..., None] * self.axes).sum(1)
        return combine((1.0, centre), (1.0, unflatten(moved, wide))).to(x.dtype)

    def _widths(self, variances: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The deviation of x_t along each axis, and first off all of them, (B or 1, 1 + K)."""
        alpha, sigma = alpha.reshape(-1, 1), sigma.reshape(-1, 1)
        widths: Tensor = (alpha**2 * (self.std**2 + variances) + sigma**2).sqrt()
        return widths

    def draw(self, noise: Noise, like: Latent) -> Latent:
        """Samples of x0, in the sizes of `like`."""
        along = noise.normal(self.axes.shape[1]).double() * self.variances.sqrt()
        spikes = unflatten((along[..., None] * self.axes).sum(1).to(like.dtype), like)
        return combine((1.0, self.centre(like)), (self.std, noise.like(like)), (1.0, spikes))

    def _along(self, x: Latent) -> Tensor:
        """The components along the spikes, (B, K)."""
        along: Tensor = (self.axes * flatten(x).double()[:, None]).sum(-1)
        return along

    def _noisy(self, x: Latent, t: Time) -> Noisy:
        alpha, sigma = self.schedule.coefficients(as_time(t))
        ones = x.map(lambda z: torch.ones_like(z, dtype=torch.float64))
        floor = flatten(combine((alpha**2 * self.std**2 + sigma**2, ones)))
        rows = (
            flatten(combine((alpha, ones)))[:, None] * self.axes * self.variances.sqrt()[..., None]
        )
        return Noisy(floor, rows)


class Noisy:
    """Cov(x_t) = D + W·Wᵀ of each sample: its diagonal `floor` (B, D) and `rows` (B, K, D)."""

    def __init__(self, floor: Tensor, rows: Tensor) -> None:
        self.floor, self.rows = floor, rows
        eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        self.small = eye + (rows / floor[:, None]) @ rows.mT

    def solve(self, v: Tensor) -> Tensor:
        """Cov(x_t)⁻¹·v, (B, D)."""
        first = v / self.floor
        inner: Tensor = torch.linalg.solve(self.small, (self.rows @ first[..., None])[..., 0])
        return first - (inner[..., None] * self.rows).sum(1) / self.floor
