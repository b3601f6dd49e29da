"""Vector quantisation with a codebook that follows the data."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from anylatent.core.latents import Latent, LatentSpec, Noise, Posterior
from anylatent.core.nn.bottleneck import Bottleneck
from anylatent.core.registry import register


@register("bottleneck", "vq")
class VQ(Bottleneck):
    """The nearest code of a codebook, with a straight-through gradient. VQ-VAE (1711.00937).

    The latent is the vector *before* quantisation, and decoding quantises (VQ-reg of LDM,
    2112.10752), so the second stage sees a continuous space. Codes are running means of the vectors
    that chose them, with decay `decay`; one that is chosen less than `revive` times as often as
    the average becomes a vector of the batch. Adds `weight`·‖z − sg(code)‖² per number.
    The vectors lie along the field's `channels`, or along its last axis if it names none.
    """

    codebook: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(
        self,
        codes: int = 1024,
        weight: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.03,
    ) -> None:
        super().__init__()
        if codes < 2:
            raise ValueError(f"a codebook needs at least 2 codes, got {codes}")
        self.codes, self.weight, self.decay, self.revive = codes, weight, decay, revive

    def attach(self, spec: LatentSpec) -> None:
        if len(spec.fields) != 1:
            raise ValueError(f"VQ quantises latents of one field, got {spec}")
        ((self.name, field),) = spec.fields.items()
        size = field.shape[-1 if field.channels is None else field.channels]
        if size is None:
            raise ValueError(f"{spec} has no axis of fixed size to make codes of")
        self.axis = -1 if field.channels is None else field.channels + 1
        self.register_buffer("codebook", torch.randn(self.codes, size))
        self.register_buffer("usage", torch.zeros(self.codes))
        self.register_buffer("sums", torch.zeros(self.codes, size))

    def posterior(self, *pieces: Latent) -> Posterior:
        (mean,) = pieces
        return Posterior(mean)

    def decodable(self, z: Latent) -> Latent:
        vectors = z[self.name].movedim(self.axis, -1)
        codes = self._codes(self._nearest(vectors.flatten(0, -2))).view_as(vectors)
        return z.replace(**{self.name: codes.movedim(-1, self.axis).to(z.dtype)})

    def forward(self, posterior: Posterior, noise: Noise) -> tuple[Latent, dict[str, Tensor]]:
        z = posterior.mean
        if self.training:
            self._learn(z, noise)
        quantised = self.decodable(z.detach())
        through = z + (quantised - z).detach()
        return through, {"vq": self.weight * z.mse(quantised)}

    def report(self) -> dict[str, float]:
        """Perplexity of the codes' running use, and the fraction of codes in use."""
        share = self.usage / self.usage.sum().clamp(min=1e-12)
        entropy = -torch.special.xlogy(share, share).sum()
        used = (share > self.revive / self.codes).float().mean()
        return {"codebook_perplexity": float(entropy.exp()), "codebook_used": float(used)}

    def _nearest(self, vectors: Tensor) -> Tensor:
        """The index of the nearest code, (N, D) to (N,), in full precision under autocast."""
        with torch.autocast(vectors.device.type, enabled=False):
            wide = vectors.to(self.codebook.dtype)
            distance = self.codebook.square().sum(1) - 2 * wide @ self.codebook.T
            return distance.argmin(1)

    def _codes(self, index: Tensor) -> Tensor:
        return self.codebook[index]

    @torch.no_grad()
    def _learn(self, z: Latent, noise: Noise) -> None:
        """One step of the running means, then new places for codes that nobody chooses."""
        vectors = z[self.name].detach().movedim(self.axis, -1)
        mask = z.masks.get(self.name)
        flat = vectors.flatten(0, -2) if mask is None else vectors[mask]
        flat = flat.to(self.codebook.dtype)
        index = self._nearest(flat)
        count = torch.zeros_like(self.usage).index_add_(0, index, torch.ones_like(flat[:, 0]))
        total = _joint(torch.zeros_like(self.sums).index_add_(0, index, flat))
        self.usage.lerp_(_joint(count), 1 - self.decay)
        self.sums.lerp_(total, 1 - self.decay)
        mean = self.usage.mean()
        dead = self.usage < self.revive * mean
        place = (torch.arange(self.codes) / self.codes + float(noise.shared_uniform())) % 1
        fresh = flat[(place * len(flat)).long().clamp(max=len(flat) - 1).to(flat.device)]
        fresh = _first(fresh)
        self.usage.copy_(torch.where(dead, mean, self.usage))
        self.sums.copy_(torch.where(dead[:, None], fresh * mean, self.sums))
        self.codebook.copy_(self.sums / self.usage.clamp(min=1e-12)[:, None])


def _parallel() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _joint(x: Tensor) -> Tensor:
    """The sum over all processes, so that each keeps the same codebook."""
    if _parallel():
        distributed.all_reduce(x)
    return x


def _first(x: Tensor) -> Tensor:
    """The first process's tensor, everywhere."""
    if _parallel():
        distributed.broadcast(x, 0)
    return x
