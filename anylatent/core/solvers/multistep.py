"""Multistep solvers: one evaluation a step, and the last ones remembered.

The flow is an integral in three ways, with z a multiple of x, over a clock of the noise level:

    z = x/sigma,             dz/dκ = x0,      κ = alpha/sigma
    z = x/alpha,             dz/dρ = noise,   ρ = sigma/alpha
    z = x/√(alpha² + sigma²), dz/dφ = v,       φ = atan(sigma/alpha),  v = (x0 on x_t at φ = π/2)

Each method replaces x0, the noise, or v = cos φ·noise - sin φ·x0, by the polynomial through its
last values in some coordinate u of the noise level, and integrates that exactly. x0 is constant
where noise hides everything, the noise where it is all that there is to see, and v is zero all the
way for data N(0, 1), as normalised latents nearly are where their details are hidden.

With noise of strength η (the SDE at η = 1) the first is

    x_s = c·x_t + sigma_s·(1 + η²)·κ_s^{-η²}·∫ x0·κ^{η²} dκ + sigma_s·√(1 - (ρ_s/ρ_t)^{2η²})·z,
    c = (sigma_s/sigma_t)·(ρ_s/ρ_t)^{η²},

whose noise is the increment of a Brownian path over the clock κ^{2η²}.

A corrector (2302.04867) repeats the last step with the value at its end, which the next step
evaluates anyway: it adds a combination of known values to x, and so costs nothing.

What a step can't use is left out by lowering its order: points that are infinite in u (pure noise,
where u is the log-SNR), and, at the first steps, values that are not there yet. From pure noise,
where x0 hardly changes, that costs no order. A solution that begins in the middle (t < 1) would
keep two, or three with a corrector. Where that is less than its order, it has more than three steps
and the first is short, it spends one evaluation more: the first step is corrected by the value at
its end, which is then taken anew. For order four the third step also corrects the first two, by the
parabola through the values so far. A denoiser that remembers its last call is not asked anew.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from anylatent.core.denoisers import Denoise
from anylatent.core.latents import Coefficient, Latent, Noise, Path
from anylatent.core.process import Schedule
from anylatent.core.solvers.base import Solver, Step, tabulate, weighted

POINTS = 48  # of Gauss's rule; enough for steps over a factor of thousands
LONGEST = 1.5  # first step, of the log-SNR, that is worth an evaluation to correct


class Frame(NamedTuple):
    """What is integrated along a grid, as columns of N rows.

    value = on_x·x_t + on_x0·x0;  x_s = c_x·x_t + c_0·x0 + gain·(mean of the value [- its newest]).
    What is kept of a value is value/on_x, which spares a product, but where on_x is 0.
    """

    on_x: Tensor
    on_x0: Tensor
    c_x: Tensor
    c_0: Tensor
    gain: Tensor
    less_newest: bool = False


@dataclass(frozen=True)
class Restart(Step):
    """The second step of a solution begun in the middle: x is first corrected, and asked anew.

    `again`: of the newest value and of the one before in what corrects x.
    """

    again: tuple[Coefficient, Coefficient] = (0.0, 0.0)

    def corrected(self, x: Latent, newest: Latent, before: Latent) -> Latent:
        return weighted((1.0, x), (self.again[0], newest), (self.again[1], before))


class History(NamedTuple):
    """The last values, newest first, and the Brownian path; and which of the values lie in memory
    that nobody else knows, as those do that are no x and no x0 themselves."""

    values: tuple[Latent, ...]
    path: Path | None = None
    own: tuple[bool, ...] = ()


class Multistep(Solver):
    """x_s as a linear combination of x_t, the last values of x0 (or noise, or v), and fresh noise.

    Subclasses give the frame, and the weights of the values in the mean over a step.
    """

    evaluations = 1
    eta: float = 0.0
    corrector: int = 0

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @abstractmethod
    def frame(self, alpha: Tensor, sigma: Tensor) -> Frame:
        """The columns for the coefficients of N + 1 times."""

    @abstractmethod
    def averages(self, schedule: Schedule, times: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Weights (K, N, ...) of the mean over each step, newest first, which sum to 1; and
        corrections (K, N, ...), which sum to 0, to the mean over the step before, the one before
        that, ..."""

    def order_of(self, steps: int) -> int:
        """The order of a solution of so many steps."""
        return self.order

    def restarts(self, schedule: Schedule, times: Tensor) -> Tensor:
        """Which solutions would lose their order by their start: bool, shape of times[0]."""
        steps, kept = len(times) - 1, 3 if self.corrector else 2
        if steps < 4 or self.order_of(steps) <= kept:
            return torch.zeros_like(times[0], dtype=torch.bool)
        first = schedule.log_snr(times[:2]).diff(dim=0)[0].abs()
        return (times[0] < 1) & (first <= LONGEST)

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        means, corrections = self.averages(schedule, times)
        frame = self.frame(*schedule.coefficients(times))
        if frame.less_newest:
            newest = torch.zeros_like(means)
            newest[0] = 1
            means = means - newest
        gain = frame.gain.where((means != 0).any(0) | frame.gain.isfinite(), 0.0)
        scale = torch.where(frame.on_x == 0, 1.0, frame.on_x)
        again, restarts = torch.zeros(2, *times[0].shape), self.restarts(schedule, times)
        if bool(restarts.any()):
            again = scale[:2].flip(0) * gain[0] * corrections[0][:2, 1].where(restarts, 0.0)
            corrections[0][:, 1] = corrections[0][:, 1].where(~restarts, 0.0)
        weights, passed = gain * means, frame.c_x
        for back, correction in enumerate(corrections, start=1):
            weights = weights + passed * shifted(gain, back) * correction
            passed = passed * shifted(frame.c_x, back)
        c_x, c_0 = frame.c_x + weights[0] * frame.on_x, frame.c_0 + weights[0] * frame.on_x0
        kept = [shifted(scale, k) * w for k, w in enumerate(weights[1:], start=1)]
        reading = frame.on_x / scale, frame.on_x0 / scale
        steps = tabulate(times, *reading, c_x, c_0, *self._noise(schedule, times), *kept)
        if bool(restarts.any()):
            steps[1] = _restart(steps[1], again)
        return steps

    def _noise(self, schedule: Schedule, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How much of it each step adds, and the ends of its clock."""
        if not self.stochastic:
            return (torch.zeros_like(times[1:]),) * 3
        log_snr = schedule.log_snr(times)
        ratio = _ratio(log_snr) ** (2 * self.eta**2)
        up = schedule.sigma(times[1:]) * (1 - ratio).clamp(min=0).sqrt()
        return up, log_snr[:-1], log_snr[1:]

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: History | None, noise: Noise | None
    ) -> tuple[Latent, History]:
        past, path, own = memory or History(())
        x0 = denoise(x, step.t)
        on_x, on_x0, c_x, c_0, up, before, after, *weights = step.coefficients
        if isinstance(step, Restart):
            better = step.corrected(x, weighted((on_x, x), (on_x0, x0)), past[0])
            if denoise.remembers:  # it would take this for a step
                x = better
            else:
                x0 = denoise(better, step.t)
                x = step.corrected(x, weighted((on_x, better), (on_x0, x0)), past[0])
        terms = [(c_x, x), (c_0, x0), *zip(weights, past, strict=False)]
        if self.stochastic and noise is not None:
            path = path or noise.path(x, self.eta**2)
            terms.append((up, path.between(before, after)))
        after_step = weighted(*terms)
        if weights:
            room = past[-1] if len(past) == len(weights) and own[-1] else None  # no more of use
            newest = weighted((on_x, x), (on_x0, x0), room=room)
            own = (newest is not x and newest is not x0, *own)[: len(weights)]
            past = (newest, *past)[: len(weights)]
        return after_step, History(past, path, own)


def _restart(step: Step, again: Tensor) -> Restart:
    newest, before = again.tolist() if again.ndim == 1 else again.unbind(0)
    return Restart(step.t, step.s, step.coefficients, (newest, before))


def shifted(rows: Tensor, by: int, axis: int = 0) -> Tensor:
    """The same rows `by` places later, after as many zeros."""
    end = rows.shape[axis] - by
    zeros = torch.zeros_like(rows.narrow(axis, 0, min(by, rows.shape[axis])))
    return torch.cat([zeros, rows.narrow(axis, 0, max(end, 0))], axis)


def _ratio(log_snr: Tensor) -> Tensor:
    """ρ_s/ρ_t of each step; 0 for the first one from pure noise."""
    return torch.where(log_snr[:-1] == -torch.inf, 0.0, torch.exp(-0.5 * log_snr.diff(dim=0)))


# ---- frames -----------------------------------------------------------------------------------
def of_data(alpha: Tensor, sigma: Tensor, eta: float = 0.0) -> Frame:
    ratio = _ratio(2 * (alpha.log() - sigma.log()))
    c_x = sigma[1:] / sigma[:-1] * ratio**eta**2
    zero, one = torch.zeros_like(c_x), torch.ones_like(c_x)
    return Frame(zero, one, c_x, zero, alpha[1:] - alpha[:-1] * c_x)


def of_noise(alpha: Tensor, sigma: Tensor) -> Frame:
    """DDIM's step, finite at alpha = 0, and how the mean noise differs from the newest."""
    c_x = sigma[1:] / sigma[:-1]
    gain = sigma[1:] - sigma[:-1] * (alpha[1:] / alpha[:-1])
    reading = (1 / sigma[:-1], -alpha[:-1] / sigma[:-1])
    return Frame(*reading, c_x, alpha[1:] - alpha[:-1] * c_x, gain, less_newest=True)


def of_velocity(alpha: Tensor, sigma: Tensor) -> Frame:
    size, angle = (alpha**2 + sigma**2).sqrt(), torch.atan2(sigma, alpha)
    reading = ((alpha / (sigma * size))[:-1], -(size / sigma)[:-1])
    c_x = size[1:] / size[:-1]
    return Frame(*reading, c_x, torch.zeros_like(c_x), size[1:] * angle.diff(dim=0))


# ---- means over a step ------------------------------------------------------------------------
Rule: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Log-SNRs at both ends of steps → log-SNRs (J, ...) between them and weights (J,), sum 1."""


@lru_cache(maxsize=1)
def _gauss() -> tuple[Tensor, Tensor]:
    """Points and weights of Gauss's rule on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    return torch.from_numpy(0.5 * (points + 1)), torch.from_numpy(0.5 * weights)


def over_power(start: Tensor, end: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """The mean with respect to κ^power.

    Over an unbounded interval it is the value at its end where κ^power is infinite.
    """
    q, weights = _gauss()
    q = q.reshape(-1, *[1] * start.ndim)
    high, low = torch.maximum(power * start, power * end), torch.minimum(power * start, power * end)
    least = torch.exp(0.5 * (low - high))
    return (high + 2 * torch.log(least + (1 - least) * q)) / power, weights


def over_angle(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The mean with respect to φ."""
    q, weights = _gauss()
    first, last = torch.atan(torch.exp(-0.5 * start)), torch.atan(torch.exp(-0.5 * end))
    angle = first + (last - first) * q.reshape(-1, *[1] * start.ndim)
    return 2 * (angle.cos().log() - angle.sin().log()), weights


def lagrange(points: Tensor, nodes: list[Tensor], weights: Tensor) -> Tensor:
    """Σ_j w_j·L_k(u_j): the weights (K, ...) of the mean of the polynomial through the nodes."""
    found = []
    for k, own in enumerate(nodes):
        basis = torch.ones_like(points)
        for node in (*nodes[:k], *nodes[k + 1 :]):
            basis = basis * (points - node) / (own - node)
        found.append(torch.einsum("j,j...->...", weights, basis))
    return torch.stack(found)


def usable(better: Tensor, worse: Tensor) -> Tensor:
    """The better weights (K, ...) where all of them are finite; `worse` has K or more rows."""
    better = torch.cat([better, torch.zeros_like(worse[len(better) :])])
    return torch.where(better.isfinite().all(0), better, worse)
