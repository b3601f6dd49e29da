"""How well held-out data are completed from parts of them, by a model that was trained to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anylatent.core.generators import Sampler
from anylatent.core.latents import Masking, Noise, Stream
from anylatent.core.modality import Item, Metrics, Outputs, fetch, join, move
from anylatent.core.runs import Run, completed, precisely
from anylatent.core.support.progress import bar

MOST, AT_ONCE = 64, 16
"""Items that are completed, and how many of them at a time."""


class Completions:
    """`each` completions of some held-out data, as a run's own rule says what is given of them."""

    def __init__(self, run: Run, dataset: Any, each: int, seed: int) -> None:
        self.run, self.each, self.seed = run, each, seed
        self.items: list[Item] = fetch(dataset, range(min(MOST, len(dataset))))

    def rows(self, sampler: Sampler, metrics: Metrics) -> dict[str, dict[str, float]]:
        """The figures that metrics have of them; none for a run that was not trained to."""
        masking = self.run.system.generator.masking
        if masking is None or self.each < 1 or not metrics.judge_completions:
            return {}
        originals, outputs, given = list[Outputs](), [list[Outputs]() for _ in range(self.each)], []
        starts = range(0, len(self.items), AT_ONCE)
        with (
            bar("completing", len(starts) * self.each * sampler.steps) as advance,
            precisely(self.run.system, sampler),
        ):
            for start in starts:
                batch = self._batch(start)
                originals.append(self.run.system.modality.originals(batch).to("cpu"))
                for k, own in enumerate(outputs):
                    made, places = self._one(sampler, masking, batch, start, k, advance)
                    own.append(made.to("cpu"))
                given.append(places)
        longest = max(places.shape[1] for places in given)
        known = torch.cat([_longer(places, longest) for places in given])
        columns = {name: [item.get(name) for item in self.items] for name in self.items[0]}
        return metrics.completions(join(originals), [join(o) for o in outputs], known, columns)

    def _batch(self, start: int) -> Mapping[str, Any]:
        return _batch(self.run, self.items[start : start + AT_ONCE])

    def _one(
        self,
        sampler: Sampler,
        masking: Masking,
        batch: Mapping[str, Any],
        start: int,
        k: int,
        advance: Callable[[], None],
    ) -> tuple[Outputs, Tensor]:
        """Completion k of each item of a batch: what is given is the same for all k."""
        places = range(start, start + len(self.items[start : start + AT_ONCE]))
        rule = _Drawn(masking, Noise.of((self.seed, Stream.GIVEN), places))
        noise = Noise.of((self.seed, Stream.COMPLETIONS, k), places)
        step = lambda i, t, x: advance()  # noqa: E731
        return completed(self.run.system, sampler, noise, batch, rule, step)


def samples_given(
    run: Run, items: Sequence[Item], sampler: Sampler, n: int, seed: int, batch: int
) -> Outputs | None:
    """n samples of a run that never makes any without something that is given, of the items in
    turn; None for other runs."""
    masking, made = run.system.generator.masking, list[Outputs]()
    if masking is None or not masking.always:
        return None
    starts = range(0, n, batch)
    with bar("sampling", len(starts) * sampler.steps) as advance, precisely(run.system, sampler):
        for start in starts:
            places = range(start, min(start + batch, n))
            data = _batch(run, [items[i % len(items)] for i in places])
            noise = Noise([(seed, i) for i in places])
            step = lambda i, t, x: advance()  # noqa: E731
            made.append(completed(run.system, sampler, noise, data, masking, step)[0].to("cpu"))
    return join(made)


def _batch(run: Run, items: Sequence[Item]) -> Mapping[str, Any]:
    return move(run.system.modality.collate(items), run.system.device)


class _Drawn(Masking):
    """A rule that always draws the same."""

    def __init__(self, rule: Masking, noise: Noise) -> None:
        self.rule, self.noise, self.axes = rule, noise, rule.axes

    def __call__(self, valid: Tensor, noise: Noise) -> Tensor | None:
        return self.rule(valid, self.noise)


def _longer(places: Tensor, length: int) -> Tensor:
    more = places.new_zeros(len(places), length - places.shape[1])
    return torch.cat((places, more), 1)
