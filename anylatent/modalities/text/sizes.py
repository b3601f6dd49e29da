"""The lengths of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Latent, LatentSpec, Noise
from anylatent.core.modality import Sizes, asked_of, histogram_nats
from anylatent.core.support.files import UserError
from anylatent.modalities.text.given import Templates, refuse, variable


class Lengths(Sizes):
    """Lengths in tokens as the data's facts count them, between the shortest and the longest.

    `lengths` are pairs of a length and how many texts of the training part have it. Latents of a
    fixed length have no such law.
    """

    asks = ("length",)

    def __init__(
        self,
        lengths: Sequence[Sequence[int]],
        shortest: int | None,
        longest: int | None,
        templates: Templates,
    ) -> None:
        self.lengths = tuple(sorted((int(n), int(count)) for n, count in lengths))
        known = [length for length, _ in self.lengths]
        self.shortest = min(known, default=1) if shortest is None else shortest
        self.longest = max(known, default=None) if longest is None else longest
        self.templates = templates

    def blank(self, spec: LatentSpec, noise: Noise, cond: Mapping[str, Any]) -> Latent:
        """Of the lengths in `cond["length"]`; None entries, or all, are drawn as in training.

        Beside a template, they are drawn among those that leave a token for each gap. Each sample
        draws one uniform number in any case, so that what follows does not depend on its
        neighbours. Raises UserError for a length outside the range of the data, for one that is too
        short for the template, and for either where latents have a fixed length.
        """
        samples = noise.batch
        if not variable(spec):
            refuse(spec, cond)
            return spec.blank(samples)
        asked, least = asked_of(cond, "length", samples), self._least(samples, cond)
        lengths = [
            self._drawn(u, few) if value is None else self._length(value, few)
            for value, u, few in zip(asked, noise.uniform().tolist(), least, strict=True)
        ]
        return spec.blank(samples, torch.tensor(lengths))

    def largest(self, spec: LatentSpec, samples: int, cond: Mapping[str, Any]) -> Latent:
        """Of the lengths in `cond["length"]`, the data's longest where None is asked."""
        if not variable(spec):
            refuse(spec, cond)
            return spec.blank(samples)
        if (longest := self.longest) is None:
            raise UserError("the lengths of the training data are unknown: give cond.length=...")
        asked, least = asked_of(cond, "length", samples), self._least(samples, cond)
        lengths = [
            longest if value is None else self._length(value, few)
            for value, few in zip(asked, least, strict=True)
        ]
        return spec.blank(samples, torch.tensor(lengths))

    def nats(self, x0: Latent) -> Tensor:
        """By the training part's histogram, with one more text of each length that there is room
        for, as a held-out text may be longer than any of it; 0 where nothing is known of it."""
        if not variable(x0.spec) or self.longest is None:
            return torch.zeros(x0.batch)
        return histogram_nats(x0, self.lengths, self.longest)

    def _least(self, samples: int, cond: Mapping[str, Any]) -> list[int]:
        """The shortest length that each sample may have."""
        templates = self.templates.read(samples, cond)
        least = [1 if template is None else template.least for template in templates]
        most = self.lengths[-1][0] if self.lengths else self.longest
        if most is not None and max(least) > most:
            raise UserError(
                f"cond.template: with a token in each gap it has {max(least)} tokens, and the "
                f"longest text of the training data {most}; shorten it"
            )
        return least

    def _drawn(self, uniform: float, least: int) -> int:
        """A length by the inverse of the histogram's distribution function, `least` or more."""
        if not self.lengths:
            raise UserError("the lengths of the training data are unknown: give cond.length=...")
        fit = [(length, count) for length, count in self.lengths if length >= least]
        below, total = 0, sum(count for _, count in fit)
        for length, count in fit:
            below += count
            if uniform * total < below:
                return length
        return fit[-1][0]

    def _length(self, value: Any, least: int) -> int:
        low, high = max(self.shortest, least), self.longest
        try:
            length = int(value)
            whole = length == float(value) and not isinstance(value, bool)
        except (TypeError, ValueError, OverflowError):
            length, whole = 0, False
        if not whole or length < low or (high is not None and length > high):
            allowed = f"{low} to {high}" if high is not None else f"{low} or more"
            raise UserError(
                f"cond.length={value}: allowed are {allowed} tokens, as in the data"
                + (" and with one in each gap of the template" if least > 1 else "")
                + "; ask for a whole number in that range, or leave it out to draw lengths as in "
                "the data"
            )
        return length
