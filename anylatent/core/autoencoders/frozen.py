"""An autoencoder that others use: it learns nothing from them, and is no part of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from anylatent.core.autoencoders.base import Autoencoder
from anylatent.core.latents import Latent, LatentSpec
from anylatent.core.modality import Batch, move


class FrozenEncoder:
    """The means of an autoencoder's posteriors, without gradients and as in evaluation, while the
    autoencoder itself may be in training. No module: whoever keeps it does not own its weights."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        self.autoencoder = autoencoder

    @property
    def spec(self) -> LatentSpec:
        return self.autoencoder.spec

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Latent:
        weight = next(self.autoencoder.parameters(), None)
        moved = batch if weight is None else move(batch, weight.device)
        with _evaluated(self.autoencoder):
            return self.autoencoder.encode(moved).mean


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    """No dropout, and no statistics that are counted, for the length of a block."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
