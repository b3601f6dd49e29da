"""Adaptive solvers: between the points of a grid each sample takes steps of its own.

With z = x/√(alpha² + sigma²) and the angle φ = atan(sigma/alpha) every schedule is the same process
z = cos φ·x0 + sin φ·noise, whose flow

    dz/d log φ = φ·(cos φ·z - x0)/sin φ

is smooth from pure noise, φ = π/2, on. A sample goes its way between two points of the grid, of
which u in [0, 1] is the part that it has gone, by steps h of u; it repeats a step with a smaller
h where the estimate of its error exceeds

    tolerance·(1 + |z|),

of norms per degree of freedom. Nothing there is shared with its neighbours. To sigma = 0 the way
leads as far as φ = tolerance, where x0 is less than the tolerance away, and ends with x0.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoise, Plain
from anylatent.core.latents import Latent, Noise, Path, choose, combine
from anylatent.core.process import Schedule, Time, angle_log_snr, as_time
from anylatent.core.registry import register
from anylatent.core.solvers.base import Callback, Solver, Step
from anylatent.core.solvers.runge_kutta import attempt, excess, resized

FIRST = 0.05  # the first step, of log φ: to a log-SNR of -5, a long one sees no error of its own
SMALLEST = 1e-9  # step, of u
MOST = 10_000  # attempts between two points of a grid


class Way(NamedTuple):
    """From one point of the grid to the next, or near it; angles are in their logarithm."""

    schedule: Schedule
    ends: tuple[Tensor, Tensor]
    """Times, the second 0 where sigma is."""
    start: Tensor
    length: Tensor

    def spread(self, batch: int) -> Way:
        """With a row for each sample."""
        start, length = (
            value.expand(batch) if value.ndim == 0 else value for value in (self.start, self.length)
        )
        return self._replace(start=start, length=length)

    def level(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """φ, time and √(alpha² + sigma²) at u, (B,), in the shape of the times."""
        u = u.reshape(-1, *[1] * (self.start.ndim - 1))
        angle = (self.start + u * self.length).exp()
        t = self.schedule.time(angle_log_snr(angle))
        t = torch.where(u == 0, self.ends[0], t)
        alpha, sigma = self.schedule.coefficients(t)
        return angle, t, (alpha**2 + sigma**2).sqrt()


class Memory(NamedTuple):
    """The next step of log φ, (B,); what the last attempt left; and the Brownian path."""

    h: Tensor
    left: Latent | None
    path: Path | None


class Adaptive(Solver):
    """Goes from each point of a grid to the next by as many steps as a sample's errors ask for.

    `order` and `evaluations` are those of one step; `cost` is what it takes at least. As steps are
    repeated, a model with self-conditioning is told no estimate, and guidance with momentum is an
    error.
    """

    def __init__(self, tolerance: float) -> None:
        if not 0 < tolerance < 1:
            raise ValueError(f"the tolerance must lie between 0 and 1, got {tolerance}")
        self.tolerance = tolerance

    @abstractmethod
    def attempt(
        self, denoise: Denoise, way: Way, z: Latent, u: Tensor, h: Tensor, memory: Memory
    ) -> tuple[Latent, Tensor, Latent | None]:
        """z after a step, its error over the tolerance, (B,), and what it leaves for the next."""

    def begin(self, denoise: Denoise, way: Way, z: Latent, noise: Noise | None) -> Memory:
        """The memory before the first attempt."""
        return Memory(torch.full((z.batch,), FIRST, dtype=torch.float64), None, None)

    def run(
        self,
        denoise: Denoise,
        schedule: Schedule,
        x: Latent,
        times: Tensor,
        noise: Noise | None,
        callback: Callback | None,
    ) -> Latent:
        denoise = denoise.forgetful()
        if denoise.remembers:
            raise ValueError(
                f"{type(self).__name__} repeats steps and waits for other samples, which guidance "
                "that remembers its last call would notice: choose a solver of fixed steps, or "
                "guidance.momentum=0"
            )
        return super().run(denoise, schedule, x, times, noise, callback)

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        alpha, sigma = schedule.coefficients(times)
        angle = torch.atan2(sigma, alpha)
        ends = torch.minimum(angle[:-1], torch.tensor(self.tolerance, dtype=torch.float64))
        ends = torch.where(sigma[1:] == 0, ends, angle[1:]).log()
        starts = angle[:-1].log()
        return [
            Step(t, s, Way(schedule, (t, s), start, end - start))
            for t, s, start, end in zip(
                times[:-1].unbind(0), times[1:].unbind(0), starts, ends, strict=True
            )
        ]

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Memory | None, noise: Noise | None
    ) -> tuple[Latent, Memory]:
        way: Way = step.coefficients.spread(x.batch)
        alpha, sigma = way.schedule.coefficients(step.s)
        _, _, size = way.level(torch.zeros(x.batch))
        z = (1 / size) * x
        memory = memory or self.begin(denoise, way, z, noise)
        z, memory = self._walk(denoise, way, z, memory)
        x = (alpha**2 + sigma**2).sqrt() * z
        clean = sigma == 0
        if not bool(clean.any()):
            return x, memory
        _, t, size = way.level(torch.ones(x.batch))
        return combine((1 - clean.double(), x), (clean * alpha, denoise(size * z, t))), memory

    def _walk(self, denoise: Denoise, way: Way, z: Latent, memory: Memory) -> tuple[Latent, Memory]:
        u = torch.zeros(z.batch, dtype=torch.float64)
        unit = way.length.abs().reshape(z.batch, -1).mean(1).clamp(min=1e-12)
        for _ in range(MOST):
            active = u < 1
            if not bool(active.any()):
                return z, memory
            wish = memory.h / unit
            h = torch.minimum(wish, 1 - u)
            after, wrong, left = self.attempt(only(denoise, active), way, z, u, h, memory)
            wrong = wrong.cpu().double().nan_to_num(nan=torch.inf)
            good = active & (wrong <= 1)
            if bool((active & ~good & (h < SMALLEST)).any()):
                break
            new = resized(h, wrong, self.power)
            new = torch.where(good & (h < wish), torch.maximum(new, wish), new)
            if left is not None and memory.left is not None:
                left = choose(good, left, memory.left)
            memory = Memory(torch.where(active, new * unit, memory.h), left, memory.path)
            z = choose(good, after, z)
            u = torch.where(good, torch.where(h < 1 - u, u + h, 1.0), u)
        raise RuntimeError(
            f"tolerance={self.tolerance} is out of reach in {z.dtype} for {int(active.sum())} of "
            f"{len(active)} samples, or the denoiser is not finite: raise the tolerance"
        )

    @property
    def power(self) -> float:
        """Of the error, to which the step is inverse."""
        return 1 / self.order


def only(denoise: Denoise, active: Tensor) -> Denoise:
    """The denoiser, of which those samples that are done are not asked, if it can do so."""
    rows = active.nonzero()[:, 0]
    own = None if bool(active.all()) else denoise.select(rows)
    if own is None:
        return denoise

    def call(x: Latent, t: Time) -> Latent:
        found = own(x.select(rows), as_time(t)[rows])
        return x.map(lambda all_, some: all_.index_copy(0, rows.to(all_.device), some), found)

    return Plain(call)


@register("solver", "dopri5")
class DormandPrince(Adaptive):
    """Dormand and Prince's pair of orders 5 and 4, with each sample's own steps (2011.13456).

    `tolerance`: of the error of a step, per degree of freedom and relative to 1 + |z|.
    """

    order = 5
    evaluations = 6

    def __init__(self, tolerance: float = 1e-4) -> None:
        super().__init__(tolerance)

    def begin(self, denoise: Denoise, way: Way, z: Latent, noise: Noise | None) -> Memory:
        left = self._slope(denoise, way)(z, torch.zeros(z.batch))
        return super().begin(denoise, way, z, noise)._replace(left=left)

    def attempt(
        self, denoise: Denoise, way: Way, z: Latent, u: Tensor, h: Tensor, memory: Memory
    ) -> tuple[Latent, Tensor, Latent | None]:
        assert memory.left is not None
        slope, length = self._slope(denoise, way), _rows(h, way) * way.length
        after, error, left = attempt(
            lambda z, part: slope(z, u + part * h), combine, z, memory.left, length
        )
        return after, excess(error, after, self.tolerance), left

    def _slope(self, denoise: Denoise, way: Way) -> Callable[[Latent, Tensor], Latent]:
        def slope(z: Latent, u: Tensor) -> Latent:
            angle, t, size = way.level(u)
            rate = angle / angle.sin()
            return combine((rate * angle.cos(), z), (-rate, denoise(size * z, t)))

        return slope


@register("solver", "adaptive_sde")
class AdaptiveSDE(Adaptive):
    """Gotta Go Fast (2105.14080): the reverse SDE by Euler and improved Euler, with own steps.

    Euler's step is ancestral sampling; where it ends, x0 is estimated again, and the improved step
    goes by the mean of both. Their distance is the error, `tolerance` what it may be, per degree of
    freedom and relative to 1 + |z|. Steps that are repeated follow the same Brownian path.
    """

    order = 1
    evaluations = 2
    stochastic = True

    def __init__(self, tolerance: float = 0.02) -> None:
        super().__init__(tolerance)

    def begin(self, denoise: Denoise, way: Way, z: Latent, noise: Noise | None) -> Memory:
        assert noise is not None  # solve sees to it
        return super().begin(denoise, way, z, noise)._replace(path=noise.path(z))

    def attempt(
        self, denoise: Denoise, way: Way, z: Latent, u: Tensor, h: Tensor, memory: Memory
    ) -> tuple[Latent, Tensor, Latent | None]:
        assert memory.path is not None
        angle, t, size = way.level(u)
        lower, s, size_s = way.level(u + h)
        ratio = lower.tan() / angle.tan()
        c = lower.sin() / angle.sin() * ratio
        gain, up = lower.cos() - angle.cos() * c, lower.sin() * (1 - ratio**2).clamp(min=0).sqrt()
        draw = memory.path.between(angle_log_snr(angle), angle_log_snr(lower))
        first = denoise(size * z, t)
        second = denoise(size_s * combine((c, z), (gain, first), (up, draw)), s)
        after = combine((c, z), (0.5 * gain, first), (0.5 * gain, second), (up, draw))
        error = combine((0.5 * gain, second), (-0.5 * gain, first))
        return after, excess(error, after, self.tolerance), None

    @property
    def power(self) -> float:
        """The error is that of Euler's step."""
        return 0.5


def _rows(h: Tensor, way: Way) -> Tensor:
    return h.reshape(-1, *[1] * (way.length.ndim - 1))
