"""Classifier guidance (2105.05233), in latent space as for text by Diffusion-LM (2205.14217)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from anylatent.core.denoisers import Classify, Denoiser
from anylatent.core.guidance.base import STACK, Guided
from anylatent.core.latents import Condition, Latent, combine
from anylatent.core.registry import register


@register("guidance", "classifier", parts=STACK)
class ClassifierGuidance(Guided):
    """x0 = x0(x_t) + scale·σ²/α·∇ log p(label | x_t), by classifiers of noisy latents.

    By Tweedie's formula x0 = (x_t + σ²·∇ log p_t)/α and Bayes' rule, scale 1 gives the denoiser of
    p(x0 | label) where denoiser and classifier are exact; more sharpens. Several labels add up, as
    if independent given x_t. Where α = 0 nothing is added.

    `classifiers`: log p(class | x_t) by the name of a label's column. The labels, (B,) long, are
    the values of these names in the condition; where one is dropped it steers nothing. They are
    taken out before the denoiser sees it, but for those that it was trained with, `known`: then
    a conditional model is sharpened, as in the paper. Interval and rescaling: see `Guided`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        classifiers: Mapping[str, Classify] | None = None,
        scale: float = 2.0,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        rescale: float = 0.0,
        known: Sequence[str] | None = None,
    ) -> None:
        super().__init__(denoiser, sigma_min, sigma_max, rescale)
        self.scale, self.classifiers = scale, dict(classifiers or {})
        self.known = tuple(known or ())

    @property
    def entry_times(self) -> bool:
        """Classifiers know one time for each sample."""
        return super().entry_times and not self.classifiers

    def guides(self, cond: Condition | None) -> bool:
        return bool(self._labels(cond))

    def plain(self, x: Latent, t: Tensor, cond: Condition | None) -> Latent:
        unknown = [name for name in self._labels(cond) if name not in self.known]
        return super().plain(x, t, cond.without(*unknown) if cond and unknown else cond)

    def change(self, x: Latent, t: Tensor, cond: Condition | None) -> tuple[Latent, Latent]:
        assert cond is not None
        alpha, sigma = self.schedule.coefficients(t)
        strength = torch.where(alpha > 0, self.scale * sigma**2 / alpha, 0.0)
        slope = self._slope(x, t, cond, self._labels(cond))
        return self.plain(x, t, cond), combine((strength, slope))

    def _labels(self, cond: Condition | None) -> list[str]:
        return [] if cond is None else [name for name in self.classifiers if name in cond.values]

    def _slope(self, x: Latent, t: Tensor, cond: Condition, labels: list[str]) -> Latent:
        """∇ Σ log p(label | x_t) on the subspace; differentiable itself where x is."""
        again = torch.is_grad_enabled() and any(z.requires_grad for z in x.parts.values())
        with torch.enable_grad(), _twice(again):
            free = x.map(lambda z: z if again and z.requires_grad else _leaf(z))
            total = torch.stack([self._evidence(name, free, t, cond) for name in labels]).sum()
            slopes = torch.autograd.grad(
                total,
                list(free.parts.values()),
                create_graph=again,
                allow_unused=True,
                materialize_grads=True,
            )
        return Latent(dict(zip(x.parts, slopes, strict=True)), x.masks, x.spec).project()

    def _evidence(self, name: str, x: Latent, t: Tensor, cond: Condition) -> Tensor:
        """log p of one label, summed over the samples that keep it."""
        wanted = cond.values[name]
        if not isinstance(wanted, Tensor):
            raise ValueError(f"the label {name} must be whole numbers (B,), got a latent")
        found = self.classifiers[name](x, t)
        chosen = found.gather(1, wanted.to(found.device)[:, None])[:, 0]
        return torch.where(cond.keep[name].to(found.device), chosen, 0).sum()


def _leaf(z: Tensor) -> Tensor:
    return z.detach().requires_grad_()


@contextmanager
def _twice(wanted: bool) -> Iterator[None]:
    """Attention by kernels that can be differentiated twice, as exact likelihoods need it."""
    if not wanted:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield
