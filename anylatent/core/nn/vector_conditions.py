"""Vectors as conditions: of a sample, such as a pooled caption, or of each entry of its latent,
such as the camera of each view."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anylatent.core.latents import Field, Latent, Value


class VectorEmbedding(nn.Module):
    """Vectors (B, D), or (B, T, D), to vectors of `width` by a linear layer, and a learned one
    where they are dropped.

    `known` is their field: (D,), or (T, D) with T = None where latents differ in length.
    """

    def __init__(self, name: str, known: Field, width: int) -> None:
        super().__init__()
        self.name, self.known = name, known
        self.linear = nn.Linear(int(known.shape[-1] or 0), width)
        self.null = nn.Parameter(torch.randn(width) * 0.02)

    @property
    def per_entry(self) -> bool:
        return len(self.known.shape) > 1

    def forward(self, value: Value | None, keep: Tensor | None, like: Tensor) -> Tensor:
        """(B, width), or (B, T, width) where `like` is (B, T, ...)."""
        lead = like.shape[:2] if self.per_entry else like.shape[:1]
        null = self.null.expand(*lead, -1)
        if value is None or keep is None:
            return null
        x, mask = self._read(value)
        if x.shape != (*lead, self.linear.in_features):
            raise ValueError(
                f"the vectors '{self.name}' must be of shape "
                f"{(*lead, self.linear.in_features)}, got {tuple(x.shape)}"
            )
        kept = keep.view(-1, *[1] * len(lead))
        valid = kept if mask is None else kept & mask[..., None]
        vector = self.linear(torch.where(valid, x, 0).to(null.dtype))
        return torch.where(kept, vector, null.to(vector.dtype))

    def _read(self, value: Value) -> tuple[Tensor, Tensor | None]:
        if not isinstance(value, Latent):
            return value, None
        if "vector" not in value.parts:
            raise ValueError(
                f"the vectors '{self.name}' must be a tensor, or a latent with the field `vector`, "
                f"got {value}"
            )
        return value["vector"], value.masks.get("vector")


def vector_embeddings(
    vectors: dict[str, Field], width: int, entries: bool
) -> dict[str, VectorEmbedding]:
    """One for each name. Raises ValueError for vectors of entries where a network has none that it
    could steer apart, and for what is no vector."""
    for name, known in vectors.items():
        if len(known.shape) > 2 or known.shape[-1] is None:
            raise ValueError(
                f"the vectors '{name}' must have the shape (D,), or (T, D) for one beside each "
                f"entry, got {known.shape}"
            )
        if len(known.shape) == 2 and not entries:
            raise ValueError(
                f"this backbone can't read the vectors '{name}' of shape {known.shape}, one for "
                "each entry: it has no entries that are steered apart. Use backbone=transformer, "
                "or one vector for each sample"
            )
    return {name: VectorEmbedding(name, known, width) for name, known in vectors.items()}
