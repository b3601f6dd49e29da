"""Several generators in a row, each given what those before it made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from anylatent.core.generators.base import Generator
from anylatent.core.generators.sampler import Guidance, Sampler
from anylatent.core.latents import Condition, Latent, LatentSpec, Noise
from anylatent.core.likelihood import Measure
from anylatent.core.process import Schedule
from anylatent.core.solvers import Callback


class Cascade(Generator):
    """p(a)·p(b | a)·...: each stage models some fields, given the condition and all before it.

    Stage i's spec holds the fields that it models. It receives those of the earlier stages as
    conditions of the same names, whose values are latents.
    """

    def __init__(self, stages: Sequence[Generator]) -> None:
        super().__init__()
        if not stages:
            raise ValueError("a cascade needs at least one stage")
        fields = [(n, f) for stage in stages for n, f in stage.spec.fields.items()]
        if len(dict(fields)) < len(fields):
            raise ValueError(f"two stages model one field: {[name for name, _ in fields]}")
        self.stages = list(stages)
        self.networks = nn.ModuleList(stages)
        self.spec = LatentSpec(dict(fields))

    @property
    def schedule(self) -> Schedule | None:
        """That of all its stages; None where they have none, or several."""
        found = {stage.schedule for stage in self.stages}
        return found.pop() if len(found) == 1 else None

    @property
    def solutions(self) -> int:
        return sum(stage.solutions for stage in self.stages)

    def accepts(self, sampler: Sampler) -> None:
        for stage in self.stages:
            stage.accepts(sampler)

    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        known, losses = cond or Condition(), []
        for stage in self.stages:
            part = x0.take(stage.spec.fields)
            losses.append(stage.loss(part, known, noise))
            known = _given(known, part)
        return torch.stack(losses).sum(0)

    @torch.no_grad()
    def sample(
        self,
        blank: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        known, parts = cond or Condition(), {}
        for stage in self.stages:
            start = blank.take(stage.spec.fields)
            part = stage.sample(start, known, sampler, noise, callback)
            known = _given(known, part)
            parts.update(part.parts)
        return _whole(parts, blank)

    @torch.no_grad()
    def invert(
        self,
        x0: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        known, parts = cond or Condition(), {}
        for stage in self.stages:
            part = x0.take(stage.spec.fields)
            found = stage.invert(part, known, sampler, noise, callback)
            known = _given(known, part)
            parts.update(found.parts)
        return _whole(parts, x0)

    def nats(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        measure: Measure,
        guidance: Guidance | None = None,
    ) -> tuple[Tensor, Latent]:
        known, totals, parts = cond or Condition(), [], {}
        for stage in self.stages:
            part = x0.take(stage.spec.fields)
            nats, y = stage.nats(part, known, noise, measure, guidance)
            totals.append(nats)
            known = _given(known, y)
            parts.update(y.parts)
        whole = _whole(parts, x0)
        return torch.stack(totals).sum(0), whole


def _given(cond: Condition, part: Latent) -> Condition:
    """What is made already is a fact: no stage ever drops it, and no guidance asks without it."""
    return cond.fixed(**{name: part.take([name]) for name in part.parts})


def _whole(parts: Mapping[str, Tensor], like: Latent) -> Latent:
    """The fields of all stages in the order of the latent that they are parts of."""
    return Latent({name: parts[name] for name in like.parts}, like.masks, like.spec)
