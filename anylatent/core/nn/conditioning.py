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


@dataclass(frozen=True)
class Embedded:
    """A vector (B, width) for the noise embedding, and tokens (B, L, width) with their mask (B, L).

    `context` and `mask` are None where the spec has no tokens; else every sample sees at least one.
    """

    vector: Tensor
    context: Tensor | None = None
    mask: Tensor | None = None


class ConditionEmbedder(nn.Module):
    """Embeds classes, scalars, tokens and maps, each with a learned null where it is dropped.

    Classes: a table with one more row. Scalars: sinusoidal features and a linear layer. Tokens: a
    linear layer and one null token, which is visible only where no other of its key is; their mean
    enters the vector too. Maps are not embedded but laid over the latent's channels by `overlay`;
    their null is one learned number per channel.
    """

    def __init__(self, spec: ConditionSpec, width: int) -> None:
        super().__init__()
        self.spec, self.width = spec, width
        self.classes = nn.ModuleDict({k: _table(n + 1, width) for k, n in spec.classes.items()})
        self.scalars = nn.ModuleDict({k: ScalarEmbedding(width) for k in spec.scalars})
        self.tokens = nn.ModuleDict({k: nn.Linear(n, width) for k, n in spec.tokens.items()})
        self.pooled = nn.ModuleDict({k: nn.Linear(width, width) for k in spec.tokens})
        vectors = [*spec.scalars, *spec.tokens]
        nulls = {k: nn.Parameter(torch.randn(width) * 0.02) for k in vectors}
        nulls |= {k: nn.Parameter(torch.zeros(n)) for k, n in spec.maps.items()}
        self.nulls = nn.ParameterDict(nulls)

    @property
    def context(self) -> int | None:
        """The width of the context tokens, None if there are none."""
        return self.width if self.spec.tokens else None

    @property
    def overlaid(self) -> int:
        """How many channels `overlay` adds."""
        return sum(self.spec.maps.values())

    def forward(self, cond: Condition | None, like: Tensor) -> Embedded:
        """`like`, shape (B, ...), tells batch size, device and dtype."""
        values, keep = self._known(cond)
        vector = like.new_zeros(like.shape[0], self.width)
        for name in self.spec.classes:
            vector = vector + self._class(name, values.get(name), keep.get(name), like)
        for name in self.spec.scalars:
            vector = vector + self._scalar(name, values.get(name), keep.get(name), like)
        contexts, masks = [], []
        for name in self.spec.tokens:
            states, mask = self._tokens(name, values.get(name), keep.get(name), like)
            mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            vector = vector + self.pooled[name](mean)
            contexts.append(states)
            masks.append(mask)
        if not contexts:
            return Embedded(vector)
        return Embedded(vector, torch.cat(contexts, 1), torch.cat(masks, 1))

    def overlay(self, x: Tensor, cond: Condition | None, axis: int = 1) -> Tensor:
        """x with the maps after its own channels, along `axis` of a tensor (B, ...)."""
        values, keep = self._known(cond)
        parts = [x]
        for name, channels in self.spec.maps.items():
            shape = [1] * x.ndim
            shape[axis] = channels
            full = [*x.shape[:axis], channels, *x.shape[axis + 1 :]]
            null = self.nulls[name].to(x.dtype).reshape(shape).expand(full)
            value = values.get(name)
            if value is None:
                parts.append(null)
                continue
            if isinstance(value, Latent) or list(value.shape) != full:
                raise ValueError(
                    f"the map '{name}' must be a tensor of shape {tuple(full)}, got "
                    f"{value if isinstance(value, Latent) else tuple(value.shape)}"
                )
            kept = keep[name].reshape(-1, *[1] * (x.ndim - 1))
            parts.append(torch.where(kept, value.to(x.dtype), null))
        return torch.cat(parts, axis) if len(parts) > 1 else x

    def _known(self, cond: Condition | None) -> tuple[Mapping[str, Value], Mapping[str, Tensor]]:
        if cond is None:
            return {}, {}
        spec = self.spec
        known = {*spec.classes, *spec.scalars, *spec.tokens, *spec.maps}
        unknown = sorted(set(cond.values) - known)
        if unknown:
            raise ValueError(
                f"this backbone embeds no condition {unknown}; it was built for {sorted(known)}"
            )
        return cond.values, cond.keep

    def _class(self, name: str, value: Value | None, keep: Tensor | None, like: Tensor) -> Tensor:
        null = self.spec.classes[name]
        index = torch.full((like.shape[0],), null, device=like.device)
        if value is not None and keep is not None:
            index = torch.where(keep, _tensor(name, value).long(), index)
        vector: Tensor = self.classes[name](index)
        return vector

    def _scalar(self, name: str, value: Value | None, keep: Tensor | None, like: Tensor) -> Tensor:
        null: Tensor = self.nulls[name].expand(like.shape[0], -1)
        if value is None or keep is None:
            return null
        vector = self.scalars[name](torch.where(keep, _tensor(name, value), 0))
        return torch.where(keep[:, None], vector, null.to(vector.dtype))

    def _tokens(
        self, name: str, value: Value | None, keep: Tensor | None, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        null = self.nulls[name].expand(like.shape[0], 1, -1)
        if value is None or keep is None:
            return null, torch.ones(null.shape[:2], dtype=torch.bool, device=like.device)
        if not isinstance(value, Latent):
            raise ValueError(f"the tokens '{name}' must be a Latent, see `token_condition`")
        mask = value.masks["tokens"] & keep[:, None]
        known = torch.where(mask[..., None], value["tokens"], 0)
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
