"""Latents that stand for tokens: the table that an autoencoder and a generator have in common."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anylatent.core.latents.latent import Latent
from anylatent.core.latents.spec import LatentSpec


class Codebook:
    """One vector for each of V tokens, in latents of one field (None, D) or (L, D).

    `vectors` gives the table (V, D) as it is now, with gradients where it is learned. The codebook
    refers to its owner's table and is no module of its own, so that no table is saved or trained
    twice.
    """

    def __init__(self, spec: LatentSpec, vectors: Callable[[], Tensor]) -> None:
        if len(spec.fields) != 1 or len(next(iter(spec.fields.values())).shape) != 2:
            raise ValueError(f"a codebook needs latents of one field (None, D) or (L, D): {spec}")
        self.spec, self.vectors = spec, vectors
        self.name = next(iter(spec.fields))
        self.size, width = vectors().shape
        if width != spec.fields[self.name].shape[1]:
            raise ValueError(f"vectors of {width} numbers in {spec}")

    def tokens(self, x0: Latent) -> Tensor:
        """The nearest vector of each entry, (B, L) long; 0 at padding."""
        x, vectors = x0[self.name].detach(), self.vectors().detach()
        with torch.autocast(x.device.type, enabled=False):
            near = x @ vectors.to(x).T - 0.5 * vectors.to(x).square().sum(1)
        tokens = near.argmax(-1)
        mask = x0.masks.get(self.name)
        return tokens if mask is None else tokens.masked_fill(~mask, 0)

    def latent(self, tokens: Tensor, mask: Tensor | None = None) -> Latent:
        """The vectors of tokens (B, L), with the mask (B, L) where lengths vary."""
        masks = {} if mask is None else {self.name: mask}
        return self.spec.wrap({self.name: self.vectors()[tokens]}, masks)
