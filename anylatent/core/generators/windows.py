"""Samples of any length from a generator of short ones, window by window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from anylatent.core.generators.around import Around, steps_of
from anylatent.core.generators.base import Generator
from anylatent.core.generators.parts import Part
from anylatent.core.generators.sampler import Sampler
from anylatent.core.inverse import Known
from anylatent.core.latents import (
    Condition,
    ConditionSpec,
    Latent,
    LatentSpec,
    Noise,
    Started,
    combine,
    over,
)
from anylatent.core.registry import Maker, register
from anylatent.core.solvers import Callback
from anylatent.core.support.files import UserError

APART = 3
"""The source of the noise of later windows, apart from what else is drawn for a sample."""


@register("generator", "windows")
def windows(
    inner: Maker[Generator],
    spec: LatentSpec,
    conditions: ConditionSpec,
    *,
    window: int = 16,
    context: int = 4,
    noise: float = 0.02,
    of: str | Mapping[str, Any] = "diffusion",
) -> Windows:
    """Samples longer than `window` entries, such as frames: window by window, each with the last
    `context` entries before it given, to which noise of deviation `noise` is added.

    `of` is the generator of a window, a name or {name: ..., settings}. It learns as it would alone.
    What it can't be shown as given, it is led to, see `Completion`.
    """
    made = inner(spec=spec, conditions=conditions, changes={"generator": of})
    return Windows(made, conditions, window, context, noise)


class Windows(Around):
    """See `windows`. The last window begins so early that it is as long as the others. A sample no
    longer than a window is the inner generator's, and the beginning of a longer one is, too."""

    def __init__(
        self,
        inner: Generator,
        conditions: ConditionSpec,
        window: int = 16,
        context: int = 4,
        noise: float = 0.02,
    ) -> None:
        super().__init__(inner)
        check_windows(self.spec, window, context)
        if not noise >= 0:
            raise UserError(f"generator.noise={noise}: 0 or more is wanted")
        self.conditions, self.window, self.context = conditions, window, context
        self.noise = noise

    def steps(self, blank: Latent, steps: int) -> int:
        count = sum(1 for _ in self._plan(lengths_of(blank)))
        return count * steps_of(self.inner, blank, steps)

    @torch.no_grad()
    def sample(
        self,
        blank: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        lengths, later = lengths_of(blank), noise.apart(APART)
        if int(lengths.max()) <= self.window:
            return self.inner.sample(blank, cond, sampler, noise, callback)
        check_noise(noise)
        made = blank
        for number, turn in enumerate(self._plan(lengths)):
            part = Part(turn.rows, turn.places, self.conditions)
            source = (later.apart(number) if number else noise).select(turn.rows)
            told, own, there = part.sampler(sampler), part.latent(blank), part.condition(cond)
            if number:
                before = part.latent(made)
                noisy = combine((1.0, before), (self.noise, source.apart().like(before)))
                known = joined(noisy, turn.made & (turn.places >= 0), told.known)
                told = replace(told, known=known)
            note = noting(callback, part, made, ~turn.made)
            made = part.put(made, self.inner.sample(own, there, told, source, note), ~turn.made)
        return made

    def invert(
        self,
        x0: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        if int(lengths_of(x0).max()) > self.window:
            raise UserError(
                f"what is longer than a window of {self.window} entries is made from several "
                "noises, one after the other: no one noise leads to it. Invert shorter data"
            )
        return self.inner.invert(x0, cond, sampler, noise, callback)

    def _plan(self, lengths: Tensor) -> Iterator[_Turn]:
        """The windows, in turn, of samples of these lengths, (B,)."""
        done = torch.zeros_like(lengths)
        while bool((done < lengths).any()):
            rows = (done < lengths).nonzero()[:, 0]
            size, had = lengths[rows], done[rows]
            first = torch.minimum(had - self.context, size - self.window).clamp(min=0)
            places = first[:, None] + torch.arange(min(self.window, int(size.max())))
            places = torch.where(places < size[:, None], places, -1)
            yield _Turn(rows, places, places < had[:, None])
            done[rows] = torch.minimum(first + self.window, size)


@dataclass(frozen=True)
class _Turn:
    """One window of each of the samples `rows` (R,): its `places` (R, W), -1 where there is none,
    and which of them are `made` already."""

    rows: Tensor
    places: Tensor
    made: Tensor


def joined(before: Latent, made: Tensor, own: Known | None) -> Known:
    """What was `made`, (R, W), of some samples, and what else is known of them, which holds."""
    given = {name: made.to(x.device) for name, x in before.parts.items()}
    if own is None:
        return Known(before, given)
    parts = {}
    for name, x in before.parts.items():
        kept = over(own.given[name].to(x.device), x)
        parts[name] = torch.where(kept, own.latents[name].to(x), x)
        given[name] = own.given[name].to(x.device) | given[name]
    return Known(before.replace(**parts), given, own.strength)


def noting(callback: Callback | None, part: Part, made: Latent, new: Tensor) -> Callback | None:
    """A callback of whole samples from one of a window."""
    if callback is None:
        return None
    return lambda index, t, x: callback(index, t, part.put(made, x, new))


def check_windows(spec: LatentSpec, window: int, context: int) -> None:
    """Raises UserError where samples of a space can't be made in such windows."""
    if context < 1 or window <= context:
        raise UserError(
            f"generator.window={window} and generator.context={context}: a window is longer than "
            "its context, which has at least one entry"
        )
    if not spec.has_entries or not all(field.variable for field in spec.fields.values()):
        raise UserError(
            f"windows are parts of an axis of variable length that all fields have, not centred "
            f"and no channels; {spec} has none: use generator=diffusion"
        )


def check_noise(noise: Noise) -> None:
    """Raises UserError for noise that is given, which is that of a sample in one piece."""
    if isinstance(noise, Started):
        raise UserError("samples longer than a window come from several noises: leave out noise=")


def lengths_of(x: Latent) -> Tensor:
    """The entries of each sample, (B,), on the host."""
    return x.lengths(next(iter(x.parts))).cpu()
