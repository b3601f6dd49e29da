"""Classifier-free guidance (2207.12598), with a scale for each condition (2211.09800)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from anylatent.core.denoisers import Denoiser
from anylatent.core.guidance.base import STACK, Guided, branches
from anylatent.core.latents import Condition, Latent, combine
from anylatent.core.registry import register


@register("guidance", "classifier_free", parts=STACK)
class ClassifierFree(Guided):
    """x0 = x0(∅) + Σ_k s_k·(x0(c₁ ... c_k) - x0(c₁ ... c_{k-1})), else x0(c₁ ... c_K).

    `scales` names conditions c₁, c₂, ... in order, each with its s_k; those that it does not name
    come last, together, with `scale`. Without `scales` this is x0(∅) + scale·(x0(cond) - x0(∅)).
    For conditions that are independent given x0 the guided law is p(x)·Π_k p(c_k | x)^s_k at each
    noise level. A scale of 1 is no guidance, 0 ignores the condition.

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
    ) -> None:
        super().__init__(denoiser, sigma_min, sigma_max, rescale)
        self.scale, self.scales = scale, {name: float(value) for name, value in scales.items()}

    def guides(self, cond: Condition | None) -> bool:
        return cond is not None and any(scale != 1 for scale, _ in self._groups(cond))

    def change(self, x: Latent, t: Tensor, cond: Condition | None) -> tuple[Latent, Latent]:
        assert cond is not None
        groups = self._groups(cond)
        edges = [1.0, *(scale for scale, _ in groups), 1.0]
        known = [self._known(cond, k) for k in range(len(groups))] + [cond]
        terms = [(edges[k] - edges[k + 1], told) for k, told in enumerate(known)]
        terms = [term for term in terms[:-1] if term[0]] + terms[-1:]
        found = branches(self.inner, x, t, [told for _, told in terms])
        weights = (weight for weight, _ in terms)
        return found[-1], combine(*zip(weights, found, strict=True))

    def _groups(self, cond: Condition) -> list[tuple[float, list[str]]]:
        """Scale and names of the conditions that are added at a time."""
        alone = [(scale, [name]) for name, scale in self.scales.items() if name in cond.droppable]
        rest = [name for name in cond.droppable if name not in self.scales]
        return alone + ([(self.scale, rest)] if rest else [])

    def _known(self, cond: Condition, count: int) -> Condition:
        """The condition with all but the first groups dropped."""
        return cond.null(*(name for _, names in self._groups(cond)[count:] for name in names))
