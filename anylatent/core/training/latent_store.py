"""Latents computed once: the parameters of every posterior, and the conditions beside them.

Sampling and normalising happen in the training loop, so nothing of the posterior is lost. A cache
is keyed by what made it: the data, the autoencoder's configuration and weights, the conditioner. It
lies on disk, in shards that all processes of a run make together (see `support.shards`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.latents import Condition, Field, Latent, LatentSpec, Posterior, Value
from anylatent.core.support.columns import Column, Columns, Ragged, Window
from anylatent.core.support.files import UserError
from anylatent.core.support.shard_reader import Spans
from anylatent.core.support.shards import Shards, rows_of
from anylatent.core.support.stored import cached_rows
from anylatent.core.training.precision import compact, lossless
from anylatent.core.training.windows import check_windows

Entry: TypeAlias = tuple[Posterior, Condition | None]

PARTS = ("tokens.", "part.", "rows.")
"""What keeps a field of a condition that is a latent: of tokens, whose places of padding are kept
too; of one size, or of as many rows as a sample has, both followed by the name of the field."""

BATCH = 64
"""How many entries are encoded at once; what a shard holds depends on it in the last bits."""


ENTRIES = 8192
"""Of long items, such as whole videos, fewer are encoded at once: so many frames at most."""


class LatentCache(Dataset[Entry]):
    """Posteriors and conditions of a data set, on disk; indexed by lists of indices or windows.

    `lengths` has the length of each entry in the first field of variable length, if there is one.
    `order` has the index of each entry of the store; by default they are in the data's order.
    """

    def __init__(self, spec: LatentSpec, store: Shards, order: Tensor | None = None) -> None:
        self.spec, self.store = spec, store
        self._place = None if order is None else order.argsort()
        names = store.names()
        self._certain = not any(name.startswith("log_std.") for name in names)
        self._conditions = [n for n in names if n.startswith(("value.", *PARTS))]
        always = [n.removeprefix("always.") for n in names if n.startswith("always.")]
        self._always = frozenset(always)
        variable = [name for name, field in spec.fields.items() if field.variable]
        self.lengths = self._in_order(store.lengths(f"mean.{variable[0]}")) if variable else None

    def __len__(self) -> int:
        return len(self.store)

    def __getitems__(self, indices: Sequence[int | Window]) -> Entry:
        """The batch of these entries; of a window, its part of all fields of variable length."""
        index = torch.tensor([i.item if isinstance(i, Window) else i for i in indices])
        items, cut = self._in_order_of(index), self._cut(indices)
        log_std = None if self._certain else self._latent("log_std", items, cut)
        return Posterior(self._latent("mean", items, cut), log_std), self._condition(items, cut)

    def __getitem__(self, index: int) -> Entry:
        return self.__getitems__([index])

    def batches(self, size: int) -> Iterable[Entry]:
        """All entries in order."""
        for start in range(0, len(self), size):
            yield self.__getitems__(list(range(start, min(start + size, len(self)))))

    def _in_order(self, column: Tensor) -> Tensor:
        return column if self._place is None else column[self._place]

    def _in_order_of(self, index: Tensor) -> Tensor:
        return index if self._place is None else self._place[index]

    def _cut(self, indices: Sequence[int | Window]) -> Spans | None:
        found = [(i.start, i.stop) for i in indices if isinstance(i, Window)]
        if not found:
            return None
        if len(found) != len(indices):
            raise ValueError("a batch is of whole entries or of windows, not of both")
        check_windows(self.spec)
        starts, stops = torch.tensor(found).unbind(1)
        return starts, stops

    def _latent(self, kind: str, items: Tensor, cut: Spans | None) -> Latent:
        parts, masks, full = {}, {}, True
        for name, field in self.spec.fields.items():
            column = self.store.take(f"{kind}.{name}", items, cut if field.variable else None)
            self._check(name, column)
            if isinstance(column, Ragged):
                full = full and column.even
                column, masks[name] = column.padded()
            parts[name] = _wide(column)
        found = Latent(parts, masks, self.spec)
        return found.unpadded() if full else found

    def _check(self, name: str, column: Column) -> None:
        """Raises UserError where numbers are not finite."""
        numbers = column.values if isinstance(column, Ragged) else column
        if not bool(numbers.isfinite().all()):
            raise UserError(
                f"the cache {self.store.directory} has numbers in '{name}' that are not finite: it "
                "is damaged. Remove it, and it is made again"
            )

    def _condition(self, items: Tensor, cut: Spans | None) -> Condition | None:
        values: dict[str, Value] = {}
        fields: dict[str, dict[str, tuple[Tensor, Tensor | None]]] = {}
        for key in self._conditions:
            kind, _, name = key.partition(".")
            if kind == "value":
                values[name] = _fixed(self.store.take(key, items))
                continue
            part, name = ("tokens", name) if kind == "tokens" else name.split(".", 1)
            column = self.store.take(key, items, cut if kind == "rows" else None)
            fields.setdefault(name, {})[part] = self._part(column, name, part, items)
        values |= {name: _latent(parts) for name, parts in fields.items()}
        keep = {}
        for name in values:
            kept = f"always.{name}" if name in self._always else f"keep.{name}"
            keep[name] = _fixed(self.store.take(kept, items))
        return Condition(values, keep, self._always) if values else None

    def _part(
        self, column: Column, name: str, part: str, items: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """A field of a condition, and its mask."""
        if not isinstance(column, Ragged):
            return _wide(column), None
        if part != "tokens":
            padded, mask = column.padded()
            return _wide(padded), mask
        valid = _fixed(self.store.take(f"valid.{name}", items))
        states = _wide(column.values)
        padded = states.new_zeros(*valid.shape, *states.shape[1:])
        padded[valid] = states
        return padded, valid


def cached_latents(
    spec: LatentSpec,
    key: str,
    size: int,
    encode: Callable[[list[int]], Entry],
    lengths: Tensor | None = None,
    about: object = None,
) -> LatentCache:
    """The cache of this key: what is on disk is read, the rest made by `encode` and kept.

    `encode` gives the posteriors and conditions of some of the `size` entries. With their `lengths`
    (size,), those encoded together are of nearly equal lengths, so that hardly anything is padding;
    the cache is in the data's order all the same. `about` tells a person what made it.
    """
    order = None if lengths is None else lengths.argsort(stable=True)
    rows = rows_of(_bytes(spec, lengths), BATCH)

    def make(items: range) -> Iterator[Columns]:
        start = items.start
        while start < items.stop:
            batch = torch.arange(start, min(start + BATCH, items.stop))
            batch = batch if order is None else order[batch]
            while lengths is not None and len(batch) > 1 and _size(batch, lengths) > ENTRIES:
                batch = batch[: len(batch) // 2]
            yield flatten(*encode(batch.tolist()))
            start += len(batch)

    store = cached_rows("latents", key, size, rows, make, "encoding", about)
    return LatentCache(spec, store, order)


def _size(batch: Tensor, lengths: Tensor) -> int:
    """The entries of a padded batch."""
    return len(batch) * int(lengths[batch].max())


def flatten(posterior: Posterior, cond: Condition | None) -> dict[str, Column]:
    """The columns of a batch, as the cache keeps them: without padding, in half precision where
    that is as good."""
    flat: dict[str, Column] = {}
    for name, field in posterior.mean.spec.fields.items():
        mask = posterior.mean.masks.get(name)
        log_std = None if posterior.log_std is None else _valid(posterior.log_std[name], mask)
        mean = _valid(posterior.mean[name], mask)
        for kind, x in zip(("mean", "log_std"), compact(mean, log_std, field.centred), strict=True):
            if x is not None:
                own = None if mask is None else mask.sum(1).cpu()
                flat[f"{kind}.{name}"] = x if own is None else Ragged(x, own)
    cond = cond or Condition()
    for name, value in cond.values.items():
        kept = f"always.{name}" if name in cond.always else f"keep.{name}"
        flat[kept] = _valid(cond.keep[name])
        if isinstance(value, Latent):
            flat |= _flat_parts(name, value)
        else:
            flat[f"value.{name}"] = _valid(value)
    return flat


def _flat_parts(name: str, value: Latent) -> dict[str, Column]:
    """The columns of a condition that is a latent."""
    flat: dict[str, Column] = {}
    for part, x in value.parts.items():
        mask = value.masks.get(part)
        states = _valid(x, mask)
        states = states.half() if lossless(states) else states
        if mask is None:
            flat[f"part.{part}.{name}"] = states
        elif part == "tokens":
            flat[f"tokens.{name}"] = Ragged(states, mask.sum(1).cpu())
            flat[f"valid.{name}"] = _valid(mask)
        else:
            flat[f"rows.{part}.{name}"] = Ragged(states, mask.sum(1).cpu())
    return flat


def _latent(parts: Mapping[str, tuple[Tensor, Tensor | None]]) -> Latent:
    """A condition's value from its fields and their masks."""
    masks = {name: mask for name, (_, mask) in parts.items() if mask is not None}
    fields = {
        name: Field((None, *x.shape[2:]) if name in masks else tuple(x.shape[1:]))
        for name, (x, _) in parts.items()
    }
    return Latent({name: x for name, (x, _) in parts.items()}, masks, LatentSpec(fields))


def _valid(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Without padding, on the CPU."""
    return (x if mask is None else x[mask]).detach().cpu()


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float16 else x


def _fixed(column: Column) -> Tensor:
    assert isinstance(column, Tensor)
    return column


def _bytes(spec: LatentSpec, lengths: Tensor | None) -> float:
    """About as much as an entry has, mean and deviation as float32."""
    mean = 1.0 if lengths is None else float(lengths.double().mean())
    return sum(
        8 * math.prod(field.rest) * (mean if field.variable else int(field.shape[0] or 1))
        for field in spec.fields.values()
    )
