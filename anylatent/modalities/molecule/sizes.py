"""The numbers of atoms of molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Latent, LatentSpec, Noise
from anylatent.core.modality import Sizes, asked_of, histogram_nats
from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.given import Fragments


class AtomCounts(Sizes):
    """Numbers of atoms as often as the data's facts count them.

    `histogram` are pairs of a size and how many molecules of the training part have it.
    """

    asks = ("atoms",)

    def __init__(self, histogram: Sequence[Sequence[int]], fragments: Fragments) -> None:
        self.histogram = tuple(sorted((int(n), int(count)) for n, count in histogram))
        self.fragments = fragments

    def blank(self, spec: LatentSpec, noise: Noise, cond: Mapping[str, Any]) -> Latent:
        """Of the sizes in `cond["atoms"]`; None entries, or all, are drawn as often as in training.

        Each sample draws one uniform number in any case, so that what follows does not depend on
        its neighbours. Raises UserError for a size outside the range of the training data.
        """
        samples = noise.batch
        least, values = self._least(samples, cond), asked_of(cond, "atoms", samples)
        lengths = [
            self._drawn(u, few) if value is None else self._size(value, few)
            for value, u, few in zip(values, noise.uniform(), least, strict=True)
        ]
        return spec.blank(samples, torch.tensor(lengths))

    def largest(self, spec: LatentSpec, samples: int, cond: Mapping[str, Any]) -> Latent:
        """Of the sizes in `cond["atoms"]`, the training data's largest where None is asked."""
        if not self.histogram:
            raise UserError("the sizes of the training data are unknown: give cond.atoms=...")
        least, values = self._least(samples, cond), asked_of(cond, "atoms", samples)
        most = self.histogram[-1][0]
        lengths = [
            self._size(most if value is None else value, few)
            for value, few in zip(values, least, strict=True)
        ]
        return spec.blank(samples, torch.tensor(lengths))

    def nats(self, x0: Latent) -> Tensor:
        """By the training part's histogram, with one more molecule of each size up to the largest,
        as a held-out one may have a size that none of it has; 0 where it is unknown."""
        if not self.histogram:
            return torch.zeros(x0.batch)
        return histogram_nats(x0, self.histogram, self.histogram[-1][0])

    def _least(self, samples: int, cond: Mapping[str, Any]) -> list[int]:
        """The smallest size that each sample may have: with more atoms than its fragment."""
        known = self.fragments.read(samples, cond)
        return [1] * samples if known is None else [item["atoms"] + 1 for item in known]

    def _drawn(self, uniform: Tensor, least: int) -> int:
        """A size by the inverse of the histogram's distribution function, of `least` atoms or
        more."""
        if not self.histogram:
            raise UserError("the sizes of the training data are unknown: give cond.atoms=...")
        sizes, counts = torch.tensor(self.histogram).unbind(1)
        fit = counts.double() * (sizes >= least)
        if not bool(fit.any()):
            raise UserError(
                f"a fragment of {least - 1} atoms leaves nothing to complete: this model makes "
                f"molecules of up to {int(sizes[-1])} atoms"
            )
        ends = fit.cumsum(0)
        place = torch.searchsorted(ends, uniform * ends[-1], right=True)
        return int(sizes[place.clamp(max=int(fit.nonzero().max()))])

    def _size(self, value: Any, least: int) -> int:
        low, high = (self.histogram[0][0], self.histogram[-1][0]) if self.histogram else (1, None)
        low = max(low, least)
        allowed = f"{low} to {high}" if high is not None else "1 or more"
        try:
            size = int(value)
            whole = size == float(value) and not isinstance(value, bool)
        except (TypeError, ValueError, OverflowError):
            size, whole = 0, False
        if not whole or size < low or (high is not None and size > high):
            raise UserError(
                f"cond.atoms={value}: allowed are {allowed} atoms, as in the training data"
                + (" and more than the fragment has" if least > 1 else "")
                + "; ask for a whole number in that range, or leave it out to draw sizes as in the "
                "data"
            )
        return size
