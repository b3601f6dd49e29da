"""Samples of any length by a window that rolls along them, each entry with a level of its own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anylatent.core.generators.around import Around
from anylatent.core.generators.base import Generator
from anylatent.core.generators.diffusion import Diffusion
from anylatent.core.generators.parts import Part
from anylatent.core.generators.sampler import Sampler
from anylatent.core.generators.windows import (
    APART,
    check_noise,
    check_windows,
    joined,
    lengths_of,
    noting,
)
from anylatent.core.latents import Condition, ConditionSpec, Latent, LatentSpec, Noise, combine
from anylatent.core.registry import Maker, register
from anylatent.core.solvers import Callback, solve
from anylatent.core.support.files import UserError


@register("generator", "rolling")
def rolling(
    inner: Maker[Generator],
    spec: LatentSpec,
    conditions: ConditionSpec,
    *,
    window: int = 16,
    context: int = 4,
) -> Rolling:
    """Samples of any length in one go: `window` entries at a time, such as frames, the first
    `context` of them finished and given, the others the noisier the later they come; as one is
    finished, the next one enters as noise. Diffusion forcing (2407.01392).

    The denoiser must have learned times for each entry, by objective.forcing=true.
    """
    made = inner(spec=spec, conditions=conditions, changes={})
    forcing = isinstance(made, Diffusion) and getattr(made.objective, "forcing", False)
    if not forcing:
        raise UserError(
            "generator=rolling asks the model for entries of different noise levels: train it with "
            "objective.forcing=true, or use generator=windows"
        )
    return Rolling(made, conditions, window, context)


class Rolling(Around):
    """See `rolling`. Entry j has taken (r - j)·N/P of the N steps of a solution at the r-th turn, P
    = window - context: entries that wait are pure noise, which says nothing, and are left out."""

    inner: Diffusion

    def __init__(
        self, inner: Generator, conditions: ConditionSpec, window: int = 16, context: int = 4
    ) -> None:
        if not isinstance(inner, Diffusion) or not inner.denoiser.entry_times:
            raise UserError(
                f"generator=rolling needs one diffusion model that knows times of entries, got "
                f"{type(inner).__name__}: use generator=windows"
            )
        super().__init__(inner)
        check_windows(self.spec, window, context)
        self.conditions, self.context, self.moving = conditions, context, window - context

    def accepts(self, sampler: Sampler) -> None:
        super().accepts(sampler)
        if sampler.steps % self.moving:
            raise UserError(
                f"steps={sampler.steps}: the {self.moving} entries that are solved at a time "
                "(generator.window - generator.context) must share them evenly: give a multiple"
            )

    def steps(self, blank: Latent, steps: int) -> int:
        turns = int(lengths_of(blank).max()) + self.moving - 1
        return turns * (steps // self.moving)

    @torch.no_grad()
    def sample(
        self,
        blank: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        self.accepts(sampler)
        if sampler.start is not None:
            raise UserError("generator=rolling starts every entry from noise: leave out the start")
        check_noise(noise)
        schedule, lengths = self.inner.schedule, lengths_of(blank)
        times = sampler.grid(schedule, sampler.steps)
        x, later = schedule.sigma(times[0]) * noise.like(blank), noise.apart(APART)
        for turn in range(int(lengths.max()) + self.moving - 1):
            rows = (lengths > turn - self.moving + 1).nonzero()[:, 0]
            first = max(0, turn - self.moving + 1 - self.context)
            places = torch.arange(first, turn + 1).expand(len(rows), -1)
            places = torch.where(places < lengths[rows][:, None], places, -1)
            part = Part(rows, places, self.conditions)
            source = later.apart(turn).select(rows)
            x = self._turn(part, turn, x, times, cond, sampler, source, callback)
        return x

    def _turn(
        self,
        part: Part,
        turn: int,
        x: Latent,
        times: Tensor,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None,
    ) -> Latent:
        """The samples after N/P steps of the entries that move."""
        schedule, done = self.inner.schedule, part.places <= turn - self.moving
        own = part.latent(x)
        grid = self._grid(times, part.places, turn)
        told = part.sampler(sampler)
        known = joined(own, done & (part.places >= 0), told.known)
        told = replace(told, known=known)
        at = torch.where(done, grid[0], 0.0).to(own.device)  # of those that are finished, x0 so far
        level = combine((torch.where(at > 0, schedule.alpha(at), 1.0), own))
        denoise = told.around(self.inner.denoiser, noise).bind(part.condition(cond))
        note = noting(callback, part, x, ~done)
        found = solve(sampler.solver, denoise, schedule, level, grid, noise, note)
        return part.put(x, found, ~done)

    def _grid(self, times: Tensor, places: Tensor, turn: int) -> Tensor:
        """(N/P + 1, R, W): of entries that are finished, or are none, the last ones."""
        each = (len(times) - 1) // self.moving
        taken = ((turn - places) * each).clamp(max=len(times) - 1 - each)
        taken = torch.where(places < 0, 0, taken)
        return times[taken + torch.arange(each + 1)[:, None, None]]
