"""Several generators in a row, each given what those before it made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from anylatent.core.denoisers import Denoiser
from anylatent.core.generators.base import Generator
from anylatent.core.generators.sampler import Guidance, Sampler
from anylatent.core.latents import Condition, Latent, LatentSpec, Noise, Value, combine
from anylatent.core.likelihood import Measure
from anylatent.core.process import Schedule, Times
from anylatent.core.solvers import Callback

APART = 4
"""The source of the noise of what stages are told, apart from what else is drawn for a sample."""

NOISE = "told_noise"
"""The condition that says how noisy is what a stage is told."""


class Cascade(Generator):
    """p(a)·p(b | a)·...: each stage models some fields, given the condition and those before it.

    Stage i's spec holds the fields that it models. It receives those of the earlier stages as facts
    of the same names, whose values are latents: `given` names them for each stage, by default all.
    `stages` are named, or have the names of their fields. `origins`: paths of the models that
    stages start from, by stage. `spec` tells the order of the fields, by default the stages'.
    `noises`, of stages that are told noisy fields: the greatest deviation of that noise, drawn
    uniformly in training, and the one in sampling; the condition `told_noise` says it (2106.15282).
    """

    def __init__(
        self,
        stages: Mapping[str, Generator] | Sequence[Generator],
        given: Mapping[str, Sequence[str]] | None = None,
        origins: Mapping[str, str] | None = None,
        spec: LatentSpec | None = None,
        noises: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__()
        if not stages:
            raise ValueError("a cascade needs at least one stage")
        if not isinstance(stages, Mapping):
            stages = {"_".join(stage.spec.fields): stage for stage in stages}
        nested = [name for name, stage in stages.items() if isinstance(stage, Cascade)]
        if nested:
            raise ValueError(f"a cascade in a cascade, {nested[0]}: have its stages in this one")
        fields = [(n, f) for stage in stages.values() for n, f in stage.spec.fields.items()]
        if len(dict(fields)) < len(fields):
            raise ValueError(f"two stages model one field: {[name for name, _ in fields]}")
        self.stages = nn.ModuleDict(stages)
        self.spec = spec or LatentSpec(dict(fields))
        self.given = {name: _before(stages, name, (given or {}).get(name)) for name in stages}
        self.noises = dict(noises or {})
        self.origins = {f"stages.{name}": path for name, path in (origins or {}).items()}

    def _each(self) -> Iterator[tuple[str, Generator]]:
        for name, stage in self.stages.items():
            assert isinstance(stage, Generator)
            yield name, stage

    @property
    def schedule(self) -> Schedule | None:
        """That of all its stages; None where they have none, or several."""
        found = {stage.schedule for _, stage in self._each()}
        return found.pop() if len(found) == 1 else None

    @property
    def times(self) -> Times | None:
        """Those of its only stage; None where several have their own."""
        found = [stage.times for _, stage in self._each()]
        return found[0] if len(found) == 1 else None

    @property
    def members(self) -> Mapping[str, Generator]:
        return dict(self._each())

    @property
    def denoisers(self) -> Mapping[str, Denoiser]:
        return {name: one for name, stage in self._each() for one in stage.denoisers.values()}

    def accepts(self, sampler: Sampler) -> None:
        for _, stage in self._each():
            stage.accepts(_sampler_of(stage, sampler))

    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        losses = [self.loss_of(name, x0, cond, noise) for name in self.stages]
        return torch.stack(losses).sum(0)

    def loss_of(self, member: str, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        stage = self.stages[member]
        assert isinstance(stage, Generator)
        told = self._told(member, cond, x0, noise, learning=True)
        return stage.loss(x0.take(stage.spec.fields), told, noise)

    @torch.no_grad()
    def sample(
        self,
        blank: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        made = blank
        for name, stage in self._each():
            start, told = blank.take(stage.spec.fields), self._told(name, cond, made, noise)
            part = stage.sample(start, told, _sampler_of(stage, sampler), noise, callback)
            made = _with(made, part)
        return made

    @torch.no_grad()
    def invert(
        self,
        x0: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        found = x0
        for name, stage in self._each():
            part, told = x0.take(stage.spec.fields), self._told(name, cond, x0, noise)
            own = _sampler_of(stage, sampler)
            found = _with(found, stage.invert(part, told, own, noise, callback))
        return found

    def nats(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        measure: Measure,
        guidance: Guidance | None = None,
    ) -> tuple[Tensor, Latent]:
        totals, y = [], x0
        for name, stage in self._each():
            part, told = x0.take(stage.spec.fields), self._told(name, cond, y, noise)
            nats, noisy = stage.nats(part, told, noise, measure, guidance)
            totals.append(nats)
            y = _with(y, noisy)
        return torch.stack(totals).sum(0), y

    def _told(
        self, name: str, cond: Condition | None, made: Latent, noise: Noise, learning: bool = False
    ) -> Condition:
        """What is made already is a fact: no stage ever drops it, and no guidance asks without."""
        found, fields = cond or Condition(), self.given[name]
        if name not in self.noises or not fields:
            return found.fixed(**{field: made.take([field]) for field in fields})
        (most, drawn), own = self.noises[name], noise.apart(APART).apart(_place(self.stages, name))
        level = most * own.uniform() if learning else torch.full((made.batch,), drawn)
        level = level.to(made.device, made.dtype)
        told = made.take(fields)
        noisy = combine((1.0, told), (level, own.like(told)))
        facts: dict[str, Value] = {field: noisy.take([field]) for field in fields}
        return found.fixed(**facts, **{NOISE: level})


def _place(stages: nn.ModuleDict, name: str) -> int:
    return list(stages).index(name) + 1


def _before(
    stages: Mapping[str, Generator], name: str, given: Sequence[str] | None
) -> Sequence[str]:
    """The fields that a stage is given, among those of the stages before it."""
    known = []
    for other, stage in stages.items():
        if other == name:
            break
        known += list(stage.spec.fields)
    unknown = [field for field in given or () if field not in known]
    if unknown:
        raise ValueError(
            f"the stage {name} can't be given {', '.join(unknown)}: what is made before it is "
            f"{', '.join(known) or 'nothing'}"
        )
    return known if given is None else list(given)


def _sampler_of(stage: Generator, sampler: Sampler) -> Sampler:
    """The sampler of one stage: its grid at the times that this one learned at, its start, and what
    is known, of the fields that it makes."""
    start, fields = sampler.start, stage.spec.fields
    if start is not None:
        x, x0 = (None if z is None else z.take(fields) for z in (start.x, start.x0))
        start = replace(start, x=x, x0=x0)
    known = None if sampler.known is None else sampler.known.take(fields)
    grid = sampler.grid.trained_at(stage.times)
    return replace(sampler, grid=grid, start=start, known=known)


def _with(whole: Latent, part: Latent) -> Latent:
    """The latent with the fields of a part of it."""
    return Latent({**whole.parts, **part.parts}, whole.masks, whole.spec)
