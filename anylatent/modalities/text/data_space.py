"""Texts as latents: a one-hot vector per token."""

from __future__ import annotations

import torch

from anylatent.core.latents import Field, Latent, LatentSpec
from anylatent.core.modality import Batch, DataSpace
from anylatent.core.support.files import UserError
from anylatent.modalities.text.texts import Texts
from anylatent.modalities.text.tokenizer import Tokenizer


class OneHot(DataSpace):
    """z (L, V), the one-hot vectors of tokens, whose normalised values have deviation `std`."""

    def __init__(
        self, vocabulary: int | None, tokenizer: Tokenizer | None, kind: str, std: float
    ) -> None:
        if not std > 0:
            raise UserError(f"onehot_std={std:g} must be positive")
        self.vocabulary, self.tokenizer, self.kind, self.std = vocabulary, tokenizer, kind, std

    @property
    def spec(self) -> LatentSpec:
        """z (None, V)."""
        if self.vocabulary is None:
            raise ValueError("how many tokens there are is unknown: build it from the data's facts")
        return LatentSpec({"z": Field((None, self.vocabulary), std=self.std)})

    def lift(self, batch: Batch) -> Latent:
        """The one-hot vectors of the tokens of a batch, float32."""
        spec = self.spec
        onehot = torch.nn.functional.one_hot(batch["tokens"], spec.fields["z"].rest[0])
        return spec.wrap({"z": onehot.float()}, {"z": batch["mask"]})

    def lower(self, z: Latent) -> Texts:
        """The token of the largest entry at each place."""
        return Texts.unpack(z["z"].argmax(-1), z.masks["z"], self.tokenizer, self.kind)
