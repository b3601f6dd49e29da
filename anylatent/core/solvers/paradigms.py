"""ParaDiGMS (2305.16317): many steps of a solver at once, by Picard's iteration.

A window of states is guessed, the solver's steps from all of them are taken in one call of the
denoiser, and a sweep from the first, which is known, adds up the changes:

    z'_{j+1} = z'_j + (step(z_j) - z_j),   z = x/√(alpha² + sigma²).

The second state is then exact, and so is each one after a state that did not change. Where changes
are below the tolerance, the window slides on. A sample's window depends on that sample alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoise
from anylatent.core.latents import Latent, Noise, cat, choose, combine
from anylatent.core.process import Schedule
from anylatent.core.registry import register
from anylatent.core.solvers.base import Callback, Solver, Step
from anylatent.core.solvers.ddim import DDIM
from anylatent.core.solvers.single_step import SingleStep

SEQUENTIAL = (
    "paradigms takes one step after the other, as its base does: a window can't be asked of a "
    "denoiser that remembers its last call (self-conditioning, guidance.momentum) or that is a "
    "plain function"
)


@register("solver", "paradigms", parts={"base": ("solver", "ddim")})
class ParaDiGMS(Solver):
    """The solution of `base`, with up to `window` steps at once, to a `tolerance`.

    Fewer calls of the denoiser one after the other, each of `window` times the batch: `Counted`
    tells both. `base` looks back at no step, and its noise, if any, is the same at each iteration.
    `tolerance` bounds a state's last change per degree of freedom, of z;
    at 0 the solution is that of `base`. A denoiser that remembers its last call, and a plain
    function, which can't be asked for a window, are solved one step after the other, with a
    warning.
    """

    def __init__(
        self, base: Solver | None = None, window: int = 16, tolerance: float = 1e-3
    ) -> None:
        if window < 1 or tolerance < 0:
            raise ValueError(
                f"need window >= 1 and tolerance >= 0, got window={window}, tolerance={tolerance}"
            )
        self.base, self.window, self.tolerance = base or DDIM(), window, tolerance
        alone = isinstance(self.base, SingleStep) and not self.base.stochastic
        if not alone and not isinstance(self.base, DDIM):
            raise ValueError(
                f"paradigms needs a base that looks back at no step: euler, ddim, ddpm, "
                f"euler_ancestral, or heun, dpm_solver, dpmpp_2s without fresh noise, got "
                f"{type(self.base).__name__}"
            )
        self.order, self.evaluations = self.base.order, self.base.evaluations

    @property
    def stochastic(self) -> bool:
        return self.base.stochastic

    def cost(self, steps: int) -> int:
        """Calls one after the other, at most."""
        return self.base.evaluations * steps

    def plan(self, schedule: Schedule, times: Tensor) -> list[Step]:
        return self.base.plan(schedule, times)

    def step(
        self, denoise: Denoise, x: Latent, step: Step, memory: Any, noise: Noise | None
    ) -> tuple[Latent, Any]:
        """A single step is the base's own."""
        return self.base.step(denoise, x, step, memory, noise)

    def run(
        self,
        denoise: Denoise,
        schedule: Schedule,
        x: Latent,
        times: Tensor,
        noise: Noise | None,
        callback: Callback | None,
    ) -> Latent:
        if denoise.select(torch.arange(x.batch)) is None:
            warnings.warn(SEQUENTIAL, stacklevel=3)
            return self.base.run(denoise, schedule, x, times, noise, callback)
        window = _Window(self, denoise, schedule, x, times)
        while bool((window.at < window.steps).any()):
            window.iterate(noise if self.stochastic else None, callback is not None)
            for index, state in window.states_passed():
                if callback is not None:
                    callback(index, times[index], state)
        return window.sizes[-1] * window.states[0]


class _Window:
    """W + 1 states z of each sample from its own place `at` on, of which the first is known."""

    def __init__(
        self, solver: ParaDiGMS, denoise: Denoise, schedule: Schedule, x: Latent, times: Tensor
    ) -> None:
        self.solver, self.denoise, self.schedule = solver, denoise, schedule
        self.times = times if times.ndim > 1 else times[:, None].expand(-1, x.batch)
        alpha, sigma = schedule.coefficients(self.times)
        self.sizes = (alpha**2 + sigma**2).sqrt()
        self.at, self.steps = torch.zeros(x.batch, dtype=torch.long), len(times) - 1
        self.width = min(solver.window, self.steps)
        self.states = [(1 / self.sizes[0]) * x] * (self.width + 1)
        self.draws: dict[int, Latent] = {}
        self.drawn = 0
        self.passed: dict[int, Latent] = {}

    def iterate(self, noise: Noise | None, told: bool) -> None:
        """Steps from all states, the sweep, and the window's new place; `told`: each is noted."""
        found, small = [self.states[0]], []
        for change, old in zip(self._changes(noise), self.states[1:], strict=True):
            found.append(found[-1] + change)
            gap = found[-1] - old
            small.append(gap.norm() / gap.dim.clamp(min=1).sqrt() <= self.solver.tolerance)
        settled = torch.stack([torch.ones_like(small[0]), *small[:-1]])
        ahead = settled.cumprod(0).sum(0).cpu()  # the one time that the host waits
        ahead = torch.minimum(ahead, self.steps - self.at)
        if told:
            self._pass(found, ahead)
        places = torch.arange(self.width + 1)[:, None] + ahead
        self.states = _gather(found, places.clamp(max=self.width))
        self.at = self.at + ahead

    def _changes(self, noise: Noise | None) -> list[Latent]:
        """step(z_j) - z_j of each state before the last; 0 behind the end of the grid."""
        batch = len(self.at)
        place = (self.at + torch.arange(self.width)[:, None]).flatten()
        rows = (place < self.steps).nonzero()[:, 0]
        place, sample = place[rows], rows % batch
        z = cat(self.states[:-1])
        before = z.select(rows)
        ends = torch.stack([self.times[place, sample], self.times[place + 1, sample]])
        (step,) = self.solver.base.plan(self.schedule, ends)
        denoise = self.denoise.select(sample)
        assert denoise is not None  # run sees to it
        drawn = None if noise is None else _Drawn(self._noise(noise, before, place, sample))
        x = self.sizes[place, sample] * before
        x, _ = self.solver.base.step(denoise, x, step, None, drawn)
        change = combine((1 / self.sizes[place + 1, sample], x), (-1.0, before))
        change = z.zeros().map(lambda a, b: a.index_copy(0, rows.to(a.device), b), change)
        return [change.select(slice(j * batch, (j + 1) * batch)) for j in range(self.width)]

    def _noise(self, noise: Noise, like: Latent, place: Tensor, sample: Tensor) -> Latent:
        """Each step has the one draw that it would have one after the other."""
        first, last = int(place.min()), int(place.max())
        self.draws = {i: draw for i, draw in self.draws.items() if i >= first}
        while self.drawn <= last:
            self.draws[self.drawn] = noise.like(self.states[0])
            self.drawn += 1
        draws = [self.draws[i] for i in range(first, last + 1)]
        return like.map(lambda *z: torch.stack(z[1:])[place - first, sample], *draws)

    def _pass(self, found: Sequence[Latent], ahead: Tensor) -> None:
        """Notes the states that the window leaves behind, for who is to be told of them."""
        for j in range(1, int(ahead.max()) + 1):
            for index in set((self.at[ahead >= j] + j).tolist()):
                chosen = (ahead >= j) & (self.at + j == index)
                self.passed[index] = choose(chosen, found[j], self.passed.get(index, found[j]))

    def states_passed(self) -> Iterator[tuple[int, Latent]]:
        """Those that all samples have passed, in order."""
        for index in sorted(self.passed):
            if index <= int(self.at.min()):
                yield index, self.sizes[index] * self.passed.pop(index)


class _Drawn(Noise):
    """The noise that is drawn already."""

    def __init__(self, drawn: Latent) -> None:
        self.drawn = drawn

    def like(self, latent: Latent) -> Latent:
        return self.drawn


def _gather(states: Sequence[Latent], places: Tensor) -> list[Latent]:
    """Row k of `places`, (K, B), says which of the states each sample has as its k-th."""
    samples = torch.arange(places.shape[1])
    stacks = {name: torch.stack([z[name] for z in states]) for name in states[0].parts}
    return [
        Latent(
            {name: stack[row, samples] for name, stack in stacks.items()},
            states[0].masks,
            states[0].spec,
        )
        for row in places
    ]
