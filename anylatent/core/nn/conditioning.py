"""From the tensors of a `Condition` to what a backbone reads.

The embedder owns a learned null token per key. A dropped key, a missing key and no condition at
all are the same thing for a sample, whatever its neighbours have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anylatent.core.latents import Condition, ConditionSpec, Latent, Value
from anylatent.core.nn.embedding import SinusoidalFeatures
from anylatent.core.nn.latent_conditions import (
    ByShape,
    EntryTokens,
    channels_of,
    entries_of,
    laid_over,
    tensor_of,
)
from anylatent.core.nn.vector_conditions import vector_embeddings


@dataclass(frozen=True)
class Embedded:
    """A vector (B, width) for the noise embedding, and tokens (B, L, width) with their mask (B, L).

    `context` and `mask` are None where the spec has no tokens; else every sample sees at least one.
    `entries`, (B, T, width), are further vectors, one for each entry of the latent.
    """

    vector: Tensor
    context: Tensor | None = None
    mask: Tensor | None = None
    entries: Tensor | None = None

    def steering(self, level: Tensor, mask: Tensor | None = None) -> Tensor:
        """The noise level (B, width), or (B, T, width), with all vectors added; of each entry where
        level or vectors are. Nothing is added in the padding, where `mask` (B, T) is False."""
        if self.entries is None:
            return level + (self.vector if level.ndim == 2 else self.vector[:, None])
        own = self.entries if mask is None else torch.where(mask[..., None], self.entries, 0)
        return (level if level.ndim == 3 else level[:, None]) + self.vector[:, None] + own


class ConditionEmbedder(nn.Module):
    """Embeds classes, scalars, tokens, maps, latents and vectors, each with a learned null where it
    is dropped.

    Classes: a table with one more row. Scalars: sinusoidal features and a linear layer. Tokens: a
    linear layer and one null token, which is visible only where no other of its key is; their mean
    enters the vector too. Maps are not embedded but laid over the latent's channels by `overlay`;
    their null is one learned number per channel. Latents are vectors, by a linear layer, tokens or
    maps, by their shape: see `latent_conditions`. Vectors: a linear layer; those of entries are
    `Embedded.entries`.

    `axes` is how many the latent has beside its channels, where grids can be laid over them, and
    `attends` tells whether the network reads context tokens, `entries` whether it steers each entry
    by a vector of its own. Raises ValueError for what it can't read then.
    """

    def __init__(
        self,
        spec: ConditionSpec,
        width: int,
        *,
        axes: int = 0,
        attends: bool = True,
        entries: bool = False,
    ) -> None:
        super().__init__()
        self.spec, self.width = spec, width
        self.by_shape = known = ByShape.of(spec.latents, axes, attends)
        self.classes = nn.ModuleDict({k: _table(n + 1, width) for k, n in spec.classes.items()})
        self.scalars = nn.ModuleDict({k: ScalarEmbedding(width) for k in spec.scalars})
        self.tokens = nn.ModuleDict({k: nn.Linear(n, width) for k, n in spec.tokens.items()})
        self.pooled = nn.ModuleDict({k: nn.Linear(width, width) for k in spec.tokens})
        vectors = [*spec.scalars, *spec.tokens, *known.vectors, *known.entries]
        nulls = {k: nn.Parameter(torch.randn(width) * 0.02) for k in vectors}
        nulls |= {k: nn.Parameter(torch.zeros(n)) for k, n in self.maps.items()}
        self.nulls = nn.ParameterDict(nulls)
        self.latents = nn.ModuleDict(
            {k: nn.Linear(channels_of(field), width) for k, field in known.vectors.items()}
        )
        for name, field in known.entries.items():
            self.tokens[name] = EntryTokens(channels_of(field), width)
            self.pooled[name] = nn.Linear(width, width)
        self.vectors = nn.ModuleDict(vector_embeddings(dict(spec.vectors), width, entries))

    @property
    def context(self) -> int | None:
        """The width of the context tokens, None if there are none."""
        return self.width if len(self.tokens) else None

    @property
    def maps(self) -> dict[str, int]:
        """The channels of all that `overlay` adds, by name and in order."""
        grids = {name: channels_of(field) for name, field in self.by_shape.grids.items()}
        return {**self.spec.maps, **grids}

    @property
    def overlaid(self) -> int:
        """How many channels `overlay` adds."""
        return sum(self.maps.values())

    def forward(self, cond: Condition | None, like: Tensor) -> Embedded:
        """`like`, shape (B, ...), tells batch size, device and dtype."""
        values, keep = self._known(cond)
        vector = like.new_zeros(like.shape[0], self.width)
        for name in self.spec.classes:
            vector = vector + self._class(name, values.get(name), keep.get(name), like)
        for name in [*self.spec.scalars, *self.by_shape.vectors]:
            vector = vector + self._vector(name, values.get(name), keep.get(name), like)
        told = [self.vectors[n](values.get(n), keep.get(n), like) for n in self.vectors]
        for found in told:
            vector = vector + found if found.ndim == 2 else vector
        each = [found for found in told if found.ndim == 3]
        entries = torch.stack(each).sum(0) if each else None
        contexts, masks = [], []
        for name in self.tokens:
            states, mask = self._tokens(name, values.get(name), keep.get(name), like)
            mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            vector = vector + self.pooled[name](mean)
            contexts.append(states)
            masks.append(mask)
        if not contexts:
            return Embedded(vector, entries=entries)
        return Embedded(vector, torch.cat(contexts, 1), torch.cat(masks, 1), entries)

    def overlay(self, x: Tensor, cond: Condition | None, axis: int = 1) -> Tensor:
        """x with the maps after its own channels, along `axis` of a tensor (B, ...)."""
        values, keep = self._known(cond)
        parts = [x]
        for name, channels in self.maps.items():
            shape = [1] * x.ndim
            shape[axis] = channels
            full = [*x.shape[:axis], channels, *x.shape[axis + 1 :]]
            null = self.nulls[name].to(x.dtype).reshape(shape).expand(full)
            value = values.get(name)
            if value is None:
                parts.append(null)
                continue
            kept = keep[name].reshape(-1, *[1] * (x.ndim - 1))
            laid = laid_over(name, self.by_shape.grids.get(name), value, full, axis)
            parts.append(torch.where(kept, laid.to(x.dtype), null))
        return torch.cat(parts, axis) if len(parts) > 1 else x

    def _known(self, cond: Condition | None) -> tuple[Mapping[str, Value], Mapping[str, Tensor]]:
        if cond is None:
            return {}, {}
        unknown = sorted(set(cond.values) - set(self.spec.names))
        if unknown:
            raise ValueError(
                f"this backbone embeds no condition {unknown}; it was built for "
                f"{sorted(self.spec.names)}"
            )
        return cond.values, cond.keep

    def _class(self, name: str, value: Value | None, keep: Tensor | None, like: Tensor) -> Tensor:
        null = self.spec.classes[name]
        index = torch.full((like.shape[0],), null, device=like.device)
        if value is not None and keep is not None:
            index = torch.where(keep, _tensor(name, value).long(), index)
        vector: Tensor = self.classes[name](index)
        return vector

    def _vector(self, name: str, value: Value | None, keep: Tensor | None, like: Tensor) -> Tensor:
        null: Tensor = self.nulls[name].expand(like.shape[0], -1)
        if value is None or keep is None:
            return null
        if name in self.spec.scalars:
            vector = self.scalars[name](torch.where(keep, _tensor(name, value), 0))
        else:
            x, _ = tensor_of(name, self.by_shape.vectors[name], value)
            vector = self.latents[name](torch.where(keep[:, None], x, 0).to(null.dtype))
        return torch.where(keep[:, None], vector, null.to(vector.dtype))

    def _tokens(
        self, name: str, value: Value | None, keep: Tensor | None, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        null = self.nulls[name].expand(like.shape[0], 1, -1)
        if value is None or keep is None:
            return null, torch.ones(null.shape[:2], dtype=torch.bool, device=like.device)
        x, mask = entries_of(name, self.by_shape.entries.get(name), value)
        mask = keep[:, None].expand(x.shape[:2]) if mask is None else mask & keep[:, None]
        known = torch.where(mask[..., None], x, 0)
        states = self.tokens[name](known.to(null.dtype))
        states = torch.cat((null.to(states.dtype), states), 1)
        return states, torch.cat((~mask.any(1, keepdim=True), mask), 1)


def _tensor(name: str, value: Value) -> Tensor:
    if isinstance(value, Latent):
        raise ValueError(f"the condition '{name}' must be a tensor of shape (B,), got {value}")
    return value


def _table(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, std=0.5)
    return table


class ScalarEmbedding(nn.Module):
    """Numbers (B,) of about unit size to vectors (B, width)."""

    def __init__(self, width: int, size: int = 64) -> None:
        super().__init__()
        self.features = SinusoidalFeatures(size)
        self.linear = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        vector: Tensor = self.linear(self.features(x).to(self.linear.weight.dtype))
        return vector
