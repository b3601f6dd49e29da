"""Five latent spaces that between them have every feature of a spec, and small helpers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from anylatent.core.denoisers import constant
from anylatent.core.latents import Field, Latent, LatentSpec, Noise, Path
from anylatent.core.process import Schedule

SPECS: Mapping[str, LatentSpec] = {
    "image": LatentSpec({"z": Field((4, 8, 8), channels=0)}),
    "video": LatentSpec({"z": Field((3, 2, 4, 4), channels=1)}),  # frames first
    "text": LatentSpec({"z": Field((None, 6))}),
    "molecule": LatentSpec({"x": Field((None, 3), centred=True), "h": Field((None, 5))}),
    "shape": LatentSpec({"shape": Field((5,)), "points": Field((6, 4))}),
}
"""Fixed, sequential, padded, padded and centred, and two fields."""

LENGTHS = (5, 9, 2, 7)


def example(
    spec: LatentSpec,
    batch: int = 4,
    *,
    dtype: torch.dtype = torch.float64,
    padded: int | None = None,
) -> Latent:
    """A blank of the spec; lengths 5, 9, 2, 7, 5, ... where it has a variable field."""
    lengths = None
    if any(field.variable for field in spec.fields.values()):
        lengths = [LENGTHS[i % len(LENGTHS)] for i in range(batch)]
    return spec.blank(batch, lengths, dtype=dtype, padded=padded)


def begin(spec: LatentSpec, schedule: Schedule, dtype: torch.dtype) -> tuple[Latent, Noise]:
    """x at t = 1, without alpha·x0, and the noise from which it goes on."""
    blank = example(spec, dtype=dtype)
    noise = Noise.of(3, blank.batch)
    return schedule.sigma(1.0) * noise.like(blank), noise


def in_subspace(latent: Latent, tolerance: float | None = None) -> bool:
    """Whether a latent is finite and no further from its projection than `tolerance`.

    Relative to its largest entry where that is above 1; 1e-12 in float64, 1e-5 otherwise.
    """
    if tolerance is None:
        tolerance = 1e-12 if latent.dtype == torch.float64 else 1e-5
    latent = latent.detach()
    projected = latent.project()
    for name, x in latent.parts.items():
        if not bool(torch.isfinite(x).all()):
            return False
        if float((x - projected[name]).abs().max()) > tolerance * max(1.0, float(x.abs().max())):
            return False
    return True


def alone(latent: Latent, index: int) -> Latent:
    """One sample of a batch at its own length, without the padding of its neighbours."""
    parts, masks = {}, {}
    for name, x in latent.parts.items():
        size = int(latent.lengths(name)[index])
        parts[name] = x[index : index + 1, :size]
        if name in latent.masks:
            masks[name] = latent.masks[name][index : index + 1, :size]
    return Latent(parts, masks, latent.spec)


def distance(first: Latent, second: Latent) -> float:
    """The largest difference over the valid entries of two latents of equal sizes."""
    worst = 0.0
    for name, x in first.parts.items():
        gap = (x - second[name]).detach().abs()
        if name in first.masks:
            gap = gap[first.masks[name]]
        worst = max(worst, float(gap.max()))
    return worst


def spoil(latent: Latent, value: float = torch.inf) -> Latent:
    """The latent with `value` in its padding."""
    parts = {}
    for name, x in latent.parts.items():
        mask = latent.masks.get(name)
        parts[name] = x if mask is None else x.masked_fill(~_shaped(mask, x), value)
    return Latent(parts, latent.masks, latent.spec)


def _shaped(mask: Tensor, x: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (x.ndim - 2))


class Impulses(Noise):
    """Draw k is one for sample k and zero for all others.

    What a linear sampler makes of it is its response to each draw, so that the sum of squares over
    the batch is the *exact* variance of its output.
    """

    def __init__(self, draws: int) -> None:
        super().__init__(list(range(draws)))
        self.drawn = 0

    def like(self, latent: Latent) -> Latent:
        if self.drawn >= self.batch:
            raise AssertionError(f"the solver draws noise more than {self.batch} times")
        hit = torch.arange(self.batch) == self.drawn
        self.drawn += 1
        return hit.to(latent.dtype) * constant(latent, 1.0)

    def path(self, latent: Latent, rate: float = 1.0) -> Path:
        """Each increment of a path is a draw."""
        return _Increments(self, latent)


class _Increments(Path):
    def __init__(self, noise: Noise, latent: Latent) -> None:
        self._noise, self._latent = noise, latent

    def between(self, before: float | Tensor, after: float | Tensor) -> Latent:
        return self._noise.like(self._latent)
