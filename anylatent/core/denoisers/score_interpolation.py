"""Continuous diffusion for categorical data: a classifier of tokens made a denoiser (CDCD).

Data are vectors e_k of a table, one for each token k, so E[x0 | x_t] = Σ_k p(k | x_t)·e_k: whoever
knows the probabilities has the denoiser, hence the score, and cross-entropy trains them. Had the
tokens no context and equal frequencies, Bayes' rule would give

    log p(k | x_t) = (α·x_t·e_k - α²·|e_k|²/2) / σ² + const,

the evidence of x_t for each token. The backbone sees its mean, and corrects its logits.
Reference: 2211.15089.
"""

from __future__ import annotations

from collections.abc import Set
from copy import copy

import torch
from torch import Tensor

from anylatent.core.denoisers.base import Denoiser
from anylatent.core.denoisers.preconditioned import Network, network_input
from anylatent.core.latents import Codebook, Condition, Field, Latent, LatentSpec, combine
from anylatent.core.process import Schedule, Time, as_time, time_limits
from anylatent.core.registry import register
from anylatent.core.support.files import UserError


@register("denoiser", "score_interpolation")
class ScoreInterpolation(Denoiser):
    """x0 = Σ_k softmax(evidence + F)_k·e_k, with logits F from a backbone; see the module.

    The backbone is laid over with the evidence's mean and, as far as they are known, with the last
    estimate of x0 and with which entries are given. It is told of these in sampling only if the
    objective tells it in training: `tells` has "estimate" or "given". `temperature` divides the
    logits.
    """

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        codebook: Codebook | None = None,
        tells: Set[str] = frozenset(),
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if codebook is None:
            raise UserError(
                "denoiser=score_interpolation needs latents that stand for tokens: choose an "
                "autoencoder with a codebook, such as unit_embedding"
            )
        field = codebook.spec.fields[codebook.name]
        width = int(field.shape[1] or 0)
        logits = LatentSpec({codebook.name: Field((field.shape[0], codebook.size))})
        maps = {"evidence": width, "estimate": width, "given": 1}
        self.backbone = network(logits, maps)
        self.schedule, self.codebook = schedule, codebook
        self.temperature = positive_temperature(temperature)
        self._self_conditioned, self._sees_given = "estimate" in tells, "given" in tells

    @property
    def self_conditioned(self) -> bool:
        return self._self_conditioned

    @property
    def sees_given(self) -> bool:
        return self._sees_given

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        t = as_time(t)
        mean = self._mean(self.logits(x, t, cond) / self.temperature, x)
        alpha, sigma = self.schedule.coefficients(t)
        noisy = (sigma > 0).to(sigma.dtype)  # at σ = 0 x is α·x0, whatever the table says
        return combine((noisy, mean), ((1 - noisy) / alpha.clamp(min=1e-12), x))

    def tempered(self, temperature: float) -> ScoreInterpolation:
        twin = copy(self)
        twin.temperature = positive_temperature(temperature)
        return twin

    def logits(self, x: Latent, t: Time, cond: Condition | None = None) -> Tensor:
        """Of each token at each entry, (B, L, V), in float32 at least."""
        t, name = as_time(t), self.codebook.name
        evidence = self.evidence(x, t)
        known = self._overlaid(x, self._mean(evidence, x), cond or Condition())
        scaled, c_noise = network_input(self.schedule, x, t, 1.0)
        correction: Tensor = self.backbone(scaled, c_noise, known)[name]
        return evidence + correction.to(evidence.dtype)

    def evidence(self, x: Latent, t: Tensor) -> Tensor:
        """The logits of each token given its own entry of x_t alone, (B, L, V)."""
        low, high = time_limits(self.schedule)
        alpha, sigma = self.schedule.coefficients(t.clamp(low, high))
        z = x[self.codebook.name]
        wide = torch.promote_types(z.dtype, torch.float32)
        alpha, variance = (_shaped(value.to(z.device, wide), z) for value in (alpha, sigma**2))
        with torch.autocast(z.device.type, enabled=False):
            vectors = self.codebook.vectors().to(wide)
            match = z.to(wide) @ vectors.T
            return (alpha * match - 0.5 * alpha**2 * vectors.square().sum(1)) / variance

    def _overlaid(self, x: Latent, evidence: Latent, cond: Condition) -> Condition:
        z = x[self.codebook.name]
        last, given = cond.values.get("estimate"), cond.values.get("given")
        estimate = last[self.codebook.name] if isinstance(last, Latent) else torch.zeros_like(z)
        known = given if isinstance(given, Tensor) else z.new_zeros(*z.shape[:2], 1)
        likely = torch.where(known > 0, z, evidence[self.codebook.name])
        maps = {"evidence": likely, "estimate": estimate, "given": known}
        return cond.without("estimate", "given").fixed(**maps)

    def _mean(self, logits: Tensor, x: Latent) -> Latent:
        with torch.autocast(logits.device.type, enabled=False):
            mean = logits.softmax(-1) @ self.codebook.vectors().to(logits.dtype)
        return x.replace(**{self.codebook.name: mean.to(x.dtype)})


def positive_temperature(value: float) -> float:
    """The value, or a UserError."""
    if not value > 0:
        raise UserError(f"temperature={value}: a positive number is wanted, 1 for the model's own")
    return float(value)


def _shaped(value: Tensor, z: Tensor) -> Tensor:
    """A coefficient (), (B,) or (B, L) for tensors (B, L, V)."""
    return value.reshape(value.shape + (1,) * (z.ndim - value.ndim)) if value.ndim else value
