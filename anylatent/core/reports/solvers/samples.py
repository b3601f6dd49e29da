"""Solutions of one generator by any solver, from the same noise, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from anylatent.core.denoisers import Counted, Denoise
from anylatent.core.generators import Generator, Guidance, Sampler
from anylatent.core.latents import Condition, Latent, Noise, Path
from anylatent.core.process import Grid, Schedule
from anylatent.core.solvers import Callback, Solver, Step


@dataclass(frozen=True)
class Samples:
    """The latents of all samples, rows (n, D) with zeros at padding, and their cost.

    `dims`, shape (n,), are degrees of freedom; `evaluations` of the denoiser are per sample, in
    each of the solutions that make one, `rounds` one after the other; `path` says whether noise
    came from a Brownian path.
    """

    rows: Tensor
    dims: Tensor
    evaluations: float
    rounds: int
    path: bool

    @property
    def scale(self) -> float:
        """The root mean square of a coordinate."""
        return float(((self.rows**2).sum() / self.dims.sum()).sqrt())

    def errors(self, wanted: Samples) -> Tensor:
        """Root mean square distances from the same samples over their scale, shape (n,)."""
        squares = ((self.rows - wanted.rows) ** 2).sum(1)
        return (squares / self.dims).sqrt().nan_to_num(nan=math.inf) / wanted.scale

    def apart(self, wanted: Samples) -> float:
        """The energy distance of the laws over their mean distance, without bias: 0 if equal."""
        between = _mean_distance(self.rows, wanted.rows)  # not of twins, of one and the same noise
        own = _mean_distance(self.rows, self.rows) + _mean_distance(wanted.rows, wanted.rows)
        share = (2 * between - own) / between
        return float(share.clamp(min=0).sqrt().nan_to_num(nan=math.inf))

    def floor(self, times: int = 16) -> float:
        """What `apart` says of n samples against n others of the same law, from halves of these."""
        half, found = len(self.rows) // 2, []
        for order in Noise(range(times)).uniform(len(self.rows)).argsort(1):
            rows = self.rows[order]
            pair = replace(self, rows=rows[:half]), replace(self, rows=rows[half : 2 * half])
            found.append(pair[0].apart(pair[1]) ** 2)
        return math.sqrt(sum(found) / times / 2)


class Prepare(Protocol):
    """Zero latents of the samples in `part` of all, one for each seed, and their condition."""

    def __call__(self, noise: Noise, part: slice) -> tuple[Latent, Condition | None]: ...


@dataclass
class Probe:
    """Solves a generator from one and the same noise with any solver.

    `advance` is called after each step of each batch, of which there are `taken`. n >= 2.
    """

    generator: Generator
    prepare: Prepare
    guidance: Guidance | None = None
    n: int = 32
    batch: int = 32
    seed: int = 0
    advance: Callable[[], None] = lambda: None
    taken: int = 0

    @property
    def batches(self) -> int:
        return -(-self.n // self.batch) * len(self.generator.members)

    def reach(self, steps: int) -> None:
        """Takes the progress to so many steps in all, where some were not needed."""
        while self.taken < steps * self.batches:
            self._note()

    @torch.no_grad()
    def __call__(self, solver: Solver, grid: Grid, steps: int) -> Samples:
        counting, path = Counting(solver), False
        found = []
        for start in range(0, self.n, self.batch):
            part = slice(start, min(start + self.batch, self.n))
            noise = Watched([(self.seed, i) for i in range(part.start, part.stop)])
            blank, cond = self.prepare(noise, part)
            sampler = Sampler(counting, grid, steps, self.guidance)
            found.append(self.generator.sample(blank, cond, sampler, noise, self._step))
            path = path or noise.followed
        dims = torch.cat([z.dim.double().cpu() for z in found]).clamp(min=1)
        each = counting.total / self.n / len(self.generator.members)
        return Samples(_rows(found), dims, each, counting.rounds, path)

    def _step(self, index: int, t: Tensor, x: Latent) -> None:
        self._note()

    def _note(self) -> None:
        self.taken += 1
        self.advance()


class Counting(Solver):
    """A solver that counts what it costs: evaluations of all samples, and the most in a row."""

    def __init__(self, solver: Solver) -> None:
        self.solver, self.order, self.evaluations = solver, solver.order, solver.evaluations
        self.total, self.rounds = 0, 0

    @property
    def stochastic(self) -> bool:
        return self.solver.stochastic

    def cost(self, steps: int) -> int:
        return self.solver.cost(steps)

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        return self.solver.plan(schedule, times)

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Any, noise: Noise | None
    ) -> tuple[Latent, Any]:
        return self.solver.step(denoise, x, step, memory, noise)

    def run(
        self,
        denoise: Denoise,
        schedule: Schedule,
        x: Latent,
        times: Tensor,
        noise: Noise | None,
        callback: Callback | None,
    ) -> Latent:
        counted = Counted(denoise, x.batch)
        found = self.solver.run(counted, schedule, x, times, noise, callback)
        self.total += int(counted.evaluations.sum())
        self.rounds = max(self.rounds, counted.calls)
        return found


class Watched(Noise):
    """Noise that remembers whether a path was asked of it."""

    followed = False

    def path(self, latent: Latent, rate: float = 1.0) -> Path:
        self.followed = True
        return super().path(latent, rate)


def _mean_distance(x: Tensor, y: Tensor) -> Tensor:
    """Of all pairs of rows (n, D) but those of one number."""
    gaps = torch.stack([(x - row).norm(dim=1) for row in y])
    return (gaps.sum() - gaps.diagonal().sum()) / (len(x) * (len(x) - 1))


def _rows(latents: Sequence[Latent]) -> Tensor:
    """All samples as rows, (n, D) float64 on the CPU, padded to the longest of each field."""
    columns = []
    for name in latents[0].parts:
        flat = [z[name].double().cpu().flatten(1) for z in latents]
        width = max(x.shape[1] for x in flat)
        columns.append(torch.cat([functional.pad(x, (0, width - x.shape[1])) for x in flat]))
    return torch.cat(columns, 1)
