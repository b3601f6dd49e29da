"""Cross-entropy of tokens trains score interpolation (CDCD, 2211.15089)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from anylatent.core.denoisers import Denoiser, ScoreInterpolation
from anylatent.core.latents import Condition, Latent, Masking, Noise, combine, reveal
from anylatent.core.objectives.base import Objective
from anylatent.core.process import Times, Warped
from anylatent.core.registry import register


@register("objective", "score_interpolation", parts={"masking": ("masking", "none")})
class TokenCrossEntropy(Objective):
    """-log p(token | x_t) per token that is not given, in nats.

    With probability `recall` a step first makes an estimate that it is then told
    (self-conditioning, 2208.04202). `masking` draws which entries are given, as clean as the data.
    """

    def __init__(
        self, times: Times | None = None, masking: Masking | None = None, recall: float = 0.5
    ) -> None:
        super().__init__()
        if not 0 <= recall <= 1:
            raise ValueError(f"recall is a probability, got {recall}")
        if masking is not None and not masking.by_entry:
            raise ValueError(f"masking.axes={list(masking.axes)}: tokens lie along axis 0")
        self.times, self.recall = times or Warped(), recall
        self.masking = masking if masking is not None and masking.gives else None
        told = {"estimate": recall > 0, "given": self.masking is not None}
        self.tells = frozenset(name for name, told in told.items() if told)

    def forward(
        self, denoiser: Denoiser, x0: Latent, cond: Condition | None, noise: Noise
    ) -> Tensor:
        if not isinstance(denoiser, ScoreInterpolation):
            raise ValueError("objective=score_interpolation needs denoiser=score_interpolation")
        schedule, name = denoiser.schedule, denoiser.codebook.name
        tokens = denoiser.codebook.tokens(x0)
        t = self.draw_times(x0, noise, schedule)
        alpha, sigma = schedule.coefficients(t)
        x, known = combine((alpha, x0), (sigma, noise.like(x0))), cond or Condition()
        wanted = x0.masks.get(name, torch.ones_like(tokens, dtype=torch.bool))
        given = None if self.masking is None else self.masking(wanted, noise)
        if given is not None:
            x, known = reveal(x, x0, {name: given}), known.fixed(given=given[..., None].to(x.dtype))
            wanted = wanted & ~given
        if float(noise.shared_uniform()) < self.recall:
            with torch.no_grad():
                estimate = denoiser(x, t, known)
            known = known.fixed(
                estimate=estimate if given is None else reveal(estimate, x0.detach(), {name: given})
            )
        logits = denoiser.logits(x, t, known)
        nats = cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        loss = torch.where(wanted, nats, 0).sum(1) / wanted.sum(1).clamp(min=1)
        if self.training:
            self.times.observe(t, loss.detach(), schedule)
        return loss
