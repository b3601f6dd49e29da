"""Classifier guidance (2105.05233), in latent space as for text by Diffusion-LM (2205.14217)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from anylatent.core.classifier import Classify
from anylatent.core.condition import Condition
from anylatent.core.denoiser import Denoiser
from anylatent.core.latent import Latent, combine
from anylatent.core.registry import register
from anylatent.core.schedules import Time, as_time


@register("guidance", "classifier")
class ClassifierGuidance(Denoiser):
    """x0 = x0(x_t) + scale·σ²/α·∇ log p(label | x_t), by classifiers of noisy latents.

    By Tweedie's formula x0 = (x_t + σ²·∇ log p_t)/α and Bayes' rule, scale 1 gives the denoiser of
    p(x0 | label) where denoiser and classifier are exact; more sharpens. Several labels add up, as
    if independent given x_t. Where α = 0 nothing is added.

    `classifiers`: log p(class | x_t) by the name of a label's column. The labels, (B,) long, are
    the values of these names in the condition, and are taken out before the denoiser sees it;
    where one is dropped it steers nothing.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        classifiers: Mapping[str, Classify] | None = None,
        scale: float = 2.0,
    ) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.scale = denoiser, denoiser.schedule, scale
        self.classifiers = dict(classifiers or {})

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        labels = [] if cond is None else [name for name in self.classifiers if name in cond.values]
        if cond is None or not labels:
            plain: Latent = self.denoiser(x, t, cond)
            return plain
        t = as_time(t)
        alpha, sigma = self.schedule.coefficients(t)
        strength = torch.where(alpha > 0, self.scale * sigma**2 / alpha, 0.0)
        found = self.denoiser(x, t, cond.without(*labels))
        return combine((1.0, found), (strength, self._slope(x, t, cond, labels)))

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
