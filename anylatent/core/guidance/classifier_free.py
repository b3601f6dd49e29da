"""Classifier-free guidance (2207.12598), with a scale for each condition (2211.09800)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser
from anylatent.core.guidance.base import STACK, Guided, branches
from anylatent.core.latents import Coefficient, Condition, Latent, combine
from anylatent.core.registry import register


@register("guidance", "classifier_free", parts=STACK)
class ClassifierFree(Guided):
    """x0 = x0(∅) + Σ_k s_k·(x0(c₁ ... c_k) - x0(c₁ ... c_{k-1})), else x0(c₁ ... c_K).

    `scales` names conditions c₁, c₂, ... in order, each with its s_k; those that it does not name
    come last, together, with `scale`. Without `scales` this is x0(∅) + scale·(x0(cond) - x0(∅)).
    For conditions that are independent given x0 the guided law is p(x)·Π_k p(c_k | x)^s_k at each
    noise level. A scale of 1 is no guidance, 0 ignores the condition.

    With `first`, the scales of a clip grow over its entries, from `first` at the first one to what
    they are at the last, in equal steps (2311.15127): frames near to one that is given need less.

    All estimates come from one call of the denoiser with a multiple of the batch; one whose
    weight is 0, as where two scales are equal, is not made. Without a condition it is the denoiser
    itself. Interval and rescaling: see `Guided`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float = 2.0,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        rescale: float = 0.0,
        scales: Mapping[str, float] = {},  # noqa: B006 - read only; {} is a plain default
        first: float | None = None,
    ) -> None:
        super().__init__(denoiser, sigma_min, sigma_max, rescale)
        self.first = first
        self.scale, self.scales = scale, {name: float(value) for name, value in scales.items()}

    def guides(self, cond: Condition | None) -> bool:
        if cond is None:
            return False
        scales = [scale for scale, _ in self._groups(cond)]
        return any(s != 1 for s in scales) or (bool(scales) and self.first not in (None, 1))

    def change(self, x: Latent, t: Tensor, cond: Condition | None) -> tuple[Latent, Latent]:
        assert cond is not None
        groups = self._groups(cond)
        edges = [1.0, *(scale for scale, _ in groups), 1.0]
        grown = [1.0, *(1.0 if self.first is None else self.first for _ in groups), 1.0]
        known = [self._known(cond, k) for k in range(len(groups))] + [cond]
        terms = [
            (edges[k] - edges[k + 1], grown[k] - grown[k + 1], told) for k, told in enumerate(known)
        ]
        terms = [term for term in terms[:-1] if term[0] or term[1]] + terms[-1:]
        found = branches(self.inner, x, t, [told for *_, told in terms])
        weights = (self._weight(last, first, x) for last, first, _ in terms)
        return found[-1], combine(*zip(weights, found, strict=True))

    def _weight(self, last: float, first: float, x: Latent) -> Coefficient:
        """A weight, or of each entry one between that of the first and of the last."""
        if self.first is None:
            return last
        (name, *_) = x.parts
        steps = (x.lengths(name) - 1).clamp(min=1)[:, None]
        place = torch.arange(x.entries, device=x.device) / steps
        return first + (last - first) * place.clamp(max=1)

    def _groups(self, cond: Condition) -> list[tuple[float, list[str]]]:
        """Scale and names of the conditions that are added at a time."""
        alone = [(scale, [name]) for name, scale in self.scales.items() if name in cond.droppable]
        rest = [name for name in cond.droppable if name not in self.scales]
        return alone + ([(self.scale, rest)] if rest else [])

    def _known(self, cond: Condition, count: int) -> Condition:
        """The condition with all but the first groups dropped."""
        return cond.null(*(name for _, names in self._groups(cond)[count:] for name in names))
