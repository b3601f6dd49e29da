"""Conditions: named values per sample, each of which may be dropped.

A dropped key stays in `values` (so that shapes never change) and is False in `keep`; the
backbone's embedder puts its learned null token there. Guidance knows no labels: it asks for
`cond.null(...)` and combines.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from anylatent.core.latents.latent import Latent, cat
from anylatent.core.latents.masks import follow
from anylatent.core.latents.noise import Noise
from anylatent.core.latents.spec import Field, LatentSpec

Value: TypeAlias = Tensor | Latent
"""A tensor of shape (B, ...), or a latent for padded values such as the states of a caption."""


@dataclass(frozen=True, eq=False)
class Condition:
    """Values of shape (B, ...) by name, and which samples keep them: bool, shape (B,).

    Values named in `always` are no wishes that guidance could strengthen, but facts about x_t, such
    as which of its entries are known: they are never dropped.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    keep: Mapping[str, Tensor] = field(default_factory=dict)
    always: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = set(self.keep) - set(self.values)
        if unknown:
            raise ValueError(f"`keep` names {sorted(unknown)}, the values are {list(self.values)}")
        keep = {name: self.keep.get(name, _all(value)) for name, value in self.values.items()}
        object.__setattr__(self, "keep", keep)
        sizes = {name: mask.shape[0] for name, mask in keep.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the values of a condition differ in batch size: {sizes}")

    def __bool__(self) -> bool:
        return bool(self.values)

    def drop(self, probability: float | Mapping[str, float], noise: Noise) -> Condition:
        """Drops each key of each sample independently, with one probability or one per key."""
        keep = dict(self.keep)
        for name in self.droppable:
            p = probability.get(name, 0.0) if isinstance(probability, Mapping) else probability
            drawn = noise.uniform().to(keep[name].device, non_blocking=True)
            keep[name] = keep[name] & (drawn >= p)
        return Condition(self.values, keep, self.always)

    def null(self, *names: str) -> Condition:
        """Drops the named keys, or all of them if none is named, for every sample."""
        unknown = set(names) - set(self.values)
        if unknown:
            raise ValueError(f"no condition {sorted(unknown)}; there are {list(self.values)}")
        gone = names or self.droppable
        keep = {n: torch.zeros_like(k) if n in gone else k for n, k in self.keep.items()}
        return Condition(self.values, keep, self.always)

    @property
    def droppable(self) -> list[str]:
        """The names of the values that may be dropped."""
        return [name for name in self.values if name not in self.always]

    def fixed(self, **values: Value) -> Condition:
        """The condition with further values that are never dropped."""
        return Condition({**self.values, **values}, self.keep, self.always | set(values))

    def without(self, *names: str) -> Condition:
        """The condition without some of its values."""
        values = {name: value for name, value in self.values.items() if name not in names}
        keep = {name: mask for name, mask in self.keep.items() if name not in names}
        return Condition(values, keep, self.always - set(names))

    def select(self, index: Any) -> Condition:
        values = {
            name: value.select(index) if isinstance(value, Latent) else value[index]
            for name, value in self.values.items()
        }
        keep = {name: mask[index] for name, mask in self.keep.items()}
        return Condition(values, keep, self.always)

    def to(self, *args: Any, **kwargs: Any) -> Condition:
        """Moves values and masks; whole-number values keep their dtype."""
        values = {name: _move(value, *args, **kwargs) for name, value in self.values.items()}
        return Condition(values, follow(self.keep, values, **kwargs), self.always)

    def pin_memory(self) -> Condition:
        values = {name: value.pin_memory() for name, value in self.values.items()}
        keep = {name: mask.pin_memory() for name, mask in self.keep.items()}
        return Condition(values, keep, self.always)

    @staticmethod
    def stack(*conditions: Condition) -> Condition:
        """One batch after the other, for evaluating several conditions in one call."""
        first = conditions[0]
        for other in conditions[1:]:
            if list(other.values) != list(first.values):
                raise ValueError(
                    f"conditions of different keys: {list(first.values)}, {list(other.values)}"
                )
        values: dict[str, Value] = {}
        for name in first.values:
            parts = [condition.values[name] for condition in conditions]
            if isinstance(parts[0], Latent):
                values[name] = cat([part for part in parts if isinstance(part, Latent)])
            else:
                values[name] = torch.cat([part for part in parts if isinstance(part, Tensor)])
        keep = {n: torch.cat([condition.keep[n] for condition in conditions]) for n in first.keep}
        return Condition(values, keep, first.always)


@dataclass(frozen=True)
class ConditionSpec:
    """What a backbone must embed. By name: how many classes, what size of token or of map.

    `classes`: integer labels of shape (B,), by their number of classes. `tokens`: latents with a
    field `tokens: (None, D)`, by D, for cross-attention. `maps`: tensors laid over the latent's
    own axes, by their number of channels, concatenated to its channels. `scalars`: numbers (B,).
    `latents`: latents of one field, by that field, whose shape says how it is read: (D,) like a
    number, (L, D) like tokens, a grid over the axes of the backbone's own latent, of any sizes,
    like a map. `vectors`: tensors, or latents with a field `vector`, by their field: (D,) steers
    the whole sample, (T, D) each of the T entries of the backbone's own latent. A name may be among
    vectors *and* tokens or latents: its value is a latent with both fields, dropped together.
    `opening` names those that say how a sample begins, and nothing of what comes later in it.
    """

    classes: Mapping[str, int] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    maps: Mapping[str, int] = field(default_factory=dict)
    scalars: Sequence[str] = ()
    latents: Mapping[str, Field] = field(default_factory=dict)
    vectors: Mapping[str, Field] = field(default_factory=dict)
    opening: Collection[str] = ()

    @property
    def names(self) -> list[str]:
        kinds = (self.classes, self.tokens, self.maps, self.scalars, self.latents, self.vectors)
        return list(dict.fromkeys(name for kind in kinds for name in kind))


def token_condition(states: Tensor, mask: Tensor, vector: Tensor | None = None) -> Latent:
    """Token states (B, L, D) with their mask (B, L) as a condition's value, and a vector (B, E)
    beside them, such as the pooled state."""
    parts, fields = {"tokens": states}, {"tokens": Field((None, states.shape[-1]))}
    if vector is not None:
        parts["vector"], fields["vector"] = vector, Field(tuple(vector.shape[1:]))
    return Latent(parts, {"tokens": mask}, LatentSpec(fields))


def _device(value: Value) -> torch.device:
    return value.device


def _all(value: Value) -> Tensor:
    batch = value.batch if isinstance(value, Latent) else value.shape[0]
    return torch.ones(batch, dtype=torch.bool, device=_device(value))


def _move(value: Value, *args: Any, **kwargs: Any) -> Value:
    if isinstance(value, Tensor) and not value.is_floating_point():
        moved = value.to(*args, **kwargs)
        return moved.to(value.dtype)
    return value.to(*args, **kwargs)
