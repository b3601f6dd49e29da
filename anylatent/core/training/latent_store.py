"""Latents computed once: the parameters of every posterior, and the conditions beside them.

Sampling and normalising happen in the training loop, so nothing of the posterior is lost. A cache
is keyed by what made it: the data, the autoencoder's configuration and weights, the conditioner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.latents import Condition, Latent, LatentSpec, Posterior, Value, token_condition
from anylatent.core.support.disk_cache import cached

Entry = tuple[Posterior, Condition | None]


class LatentCache(Dataset[Entry]):
    """Posteriors and conditions of a data set, in memory; indexed by lists of indices.

    `lengths` has the length of each entry in the first field of variable length, if there is one.
    """

    def __init__(self, spec: LatentSpec, tensors: Mapping[str, Tensor]) -> None:
        self.spec, self.tensors = spec, dict(tensors)
        name, field = next(iter(spec.fields.items()))
        self.size = len(tensors[f"lengths.{name}" if field.variable else f"mean.{name}"])
        self.ends = {
            name: self.tensors[f"lengths.{name}"].cumsum(0)
            for name, field in spec.fields.items()
            if field.variable
        }
        self.lengths = next((tensors[f"lengths.{name}"] for name in self.ends), None)

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, indices: list[int]) -> Entry:
        index = torch.as_tensor(indices)
        log_std = self._latent("log_std", index) if self._has("log_std") else None
        return Posterior(self._latent("mean", index), log_std), self._condition(index)

    def __getitem__(self, index: int) -> Entry:
        return self.__getitems__([index])

    def batches(self, size: int) -> Iterable[Entry]:
        """All entries in order."""
        for start in range(0, self.size, size):
            yield self.__getitems__(list(range(start, min(start + size, self.size))))

    def _has(self, kind: str) -> bool:
        return f"{kind}.{next(iter(self.spec.fields))}" in self.tensors

    def _latent(self, kind: str, index: Tensor) -> Latent:
        parts, masks = {}, {}
        for name, field in self.spec.fields.items():
            stored = self.tensors[f"{kind}.{name}"]
            if not field.variable:
                parts[name] = stored[index]
                continue
            lengths = self.tensors[f"lengths.{name}"][index]
            place = torch.arange(int(lengths.max()))
            mask = masks[name] = place < lengths[:, None]
            row = torch.where(mask, (self.ends[name][index] - lengths)[:, None] + place, 0)
            parts[name] = stored[row].masked_fill_(
                ~mask.view(*mask.shape, *[1] * (stored.ndim - 1)), 0
            )
        return Latent(parts, masks, self.spec)

    def _condition(self, index: Tensor) -> Condition | None:
        values: dict[str, Value] = {}
        for key, tensor in self.tensors.items():
            kind, _, name = key.partition(".")
            if kind == "value":
                values[name] = tensor[index]
            elif kind == "tokens":
                values[name] = token_condition(tensor[index], self.tensors[f"valid.{name}"][index])
        return Condition(values) if values else None


def _flatten(posterior: Posterior, cond: Condition | None) -> dict[str, Tensor]:
    """The tensors of a batch under the names of a cache; padding is left out."""
    flat: dict[str, Tensor] = {}
    kinds = {"mean": posterior.mean, "log_std": posterior.log_std}
    for kind, latent in kinds.items():
        for name, x in latent.parts.items() if latent is not None else ():
            mask = posterior.mean.masks.get(name)
            flat[f"{kind}.{name}"] = x if mask is None else x[mask]
            if mask is not None:
                flat[f"lengths.{name}"] = mask.sum(1)
    for name, value in cond.values.items() if cond is not None else ():
        if isinstance(value, Latent):
            flat[f"tokens.{name}"], flat[f"valid.{name}"] = value["tokens"], value.masks["tokens"]
        else:
            flat[f"value.{name}"] = value
    return {name: tensor.detach().cpu() for name, tensor in flat.items()}


def cached_latents(
    spec: LatentSpec,
    key: str,
    encode: Callable[[], Iterable[Entry]],
    order: Tensor | None = None,
) -> LatentCache:
    """The cache of this key, read if it is there, else made by `encode` and kept.

    `order` has the index of each encoded entry where `encode` does not go through the data in
    their order; the cache is in their order all the same.
    """

    def build() -> dict[str, Tensor]:
        rows = [_flatten(posterior, cond) for posterior, cond in encode()]
        joint = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return joint if order is None else _reorder(joint, order.argsort())

    return LatentCache(spec, cached("latents", key, build))


def _reorder(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The entries `rows` of the tensors of a cache."""
    found = {}
    for name, tensor in tensors.items():
        kind, _, field = name.partition(".")
        lengths = tensors.get(f"lengths.{field}") if kind in ("mean", "log_std") else None
        if lengths is None:
            found[name] = tensor[rows]
        else:
            entries = torch.split(tensor, lengths.tolist())
            found[name] = torch.cat([entries[row] for row in rows.tolist()])
    return found
