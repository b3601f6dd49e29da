"""What a run has learned from, and what it has not: a digest for each item of its data.

    items.safetensors    train, held_out, before: int64, a number for each item; `before` are those
                         that the models learned from which this one came from; told: int64, a
                         number for the texts and classes of each of the first two

A run's figures are of items that neither it nor they have learned from, though its data may have
changed since.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anylatent.core.modality import Data
from anylatent.core.registry import build, get, part
from anylatent.core.runs.config import Node, RunConfig
from anylatent.core.runs.directory import RunDirectory
from anylatent.core.runs.records.known_split import KnownSplit, digests
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.files import (
    UserError,
    load_metadata,
    load_weights,
    place_of,
    save_weights,
)
from anylatent.core.support.plain_yaml import plain

FILE = "items.safetensors"
VERSION = "2"
"""Pictures are numbers of what they were read from."""


@dataclass(frozen=True)
class Learned:
    """Items that were learned from and held out, by digest, and those learned from before; what is
    told of the first two. `own`: the parts are those that the data have of themselves."""

    fingerprint: str
    train: Tensor
    held_out: Tensor
    before: Tensor
    told: Tensor
    own: bool = True

    @classmethod
    def of(cls, data: Data, before: Tensor) -> Learned:
        """Of data as they are, but that nothing learned from before is held out."""
        items = digests(data)
        wrong = torch.isin(items.held_out, before)
        if bool(wrong.any()):
            _tell(int(wrong.sum()), len(wrong))
        kept = torch.cat([torch.ones(len(items.train), dtype=torch.bool), ~wrong])
        held_out, own = items.held_out[~wrong], not bool(wrong.any())
        return cls(data.fingerprint, items.train, held_out, before, items.told[kept], own)

    @classmethod
    def load(cls, run: Path) -> Learned | None:
        """None for a run that does not tell."""
        path = run / FILE
        if not path.exists():
            return None
        tensors, metadata = load_weights(path)
        try:
            parts = [tensors[name] for name in ("train", "held_out", "before", "told")]
            fingerprint, own = metadata["fingerprint"], metadata["own"] == "yes"
        except KeyError as error:
            raise UserError(f"{path} lacks {error}: it tells no items of a run") from None
        train, held_out, before, told = parts
        rows = all(part.dtype == torch.int64 and part.ndim == 1 for part in parts)
        if not rows or len(told) != len(train) + len(held_out):
            raise UserError(f"{path} must have integers in rows: it tells no items of a run")
        return cls(fingerprint, train, held_out, before, told, own)

    def save(self, run: Path) -> None:
        """Writes the file, unless it says so already."""
        tensors = {"train": self.train, "held_out": self.held_out, "before": self.before}
        tensors["told"] = self.told
        told = {"fingerprint": self.fingerprint, "own": "yes" if self.own else "no"}
        told["version"] = VERSION
        told["digest"] = digest(told, tensors)
        if not (run / FILE).exists() or load_metadata(run / FILE) != told:
            save_weights(run / FILE, tensors, told)

    @property
    def every(self) -> Tensor:
        """All that this model and those before it have learned from."""
        return _distinct(self.train, self.before)

    def changes(self, data: Data) -> str:
        """What the data have now and had not then, in words; "" where nothing has changed."""
        if data.fingerprint == self.fingerprint:
            return ""
        items, own = digests(data), torch.cat([self.train, self.held_out])
        now = torch.cat([items.train, items.held_out])
        added = int((~torch.isin(now, torch.cat([own, self.before]))).sum())
        removed = int((~torch.isin(own, now)).sum())
        said = set(zip(own.tolist(), self.told.tolist(), strict=True))
        there = set(own.tolist())
        pairs = zip(now.tolist(), items.told.tolist(), strict=True)
        changed = sum(item in there and (item, told) not in said for item, told in pairs)
        found = []
        if added or removed:
            found.append(
                f"{added} items added and {removed} removed (one that was changed counts as both)"
            )
        if changed:
            found.append(f"{changed} items with other classes or texts")
        return " and ".join(found)

    def with_changed(self, data: Data) -> Learned:
        """Of data that have changed: nothing that was learned from is held out."""
        items = digests(data)
        now, kept = items.every, torch.cat([self.held_out, items.held_out])
        held = torch.isin(now, kept) & ~torch.isin(now, self.every)
        gone = ~torch.isin(self.train, now)  # which it has learned from all the same
        train = torch.cat([now[~held], self.train[gone]])
        own = self.told[: len(self.train)][gone]
        told = torch.cat([items.told[~held], own, items.told[held]])
        return Learned(data.fingerprint, train, now[held], self.before, told, own=False)

    def split(self, data: Data) -> Data:
        """The data in these parts."""
        if self.own and data.fingerprint == self.fingerprint:
            return data
        now = digests(data).every
        held = torch.isin(now, self.held_out) & ~torch.isin(now, self.every)
        learned = torch.isin(now, self.train) & ~held
        return KnownSplit(data, *(mask.nonzero().flatten().tolist() for mask in (learned, held)))


def data_of(run: Path, node: Node, source: RunConfig | None = None) -> Data:
    """The data that a run has, or is to have; where they have changed since it was begun, as it
    reads them: by its own tokens or elements; of one that is begun, as the model does that it
    comes from, if there is one. Raises UserError where they are not there."""
    directory, told = RunDirectory(run), Learned.load(run)
    path = node.get("path")
    if told is not None and path and not place_of(path).exists():
        raise UserError(
            f"{run} has its data from data.path={path}, where there is nothing, as seen from here: "
            "data.path=... says where they are now"
        )
    data: Data = build("data", node)
    if told is not None and told.fingerprint == data.fingerprint:
        return data
    model = source if told is None else directory.config()
    return data if model is None else _read_by(model, data, node)


def _read_by(model: RunConfig, data: Data, node: Node) -> Data:
    """The data, in the tokens or elements of a model where these can be told."""
    known = {name: model.facts[name] for name in _encoding(model) if name in model.facts}
    if not part("data", node["name"]).parameters().keys() & known.keys():
        return data
    again: Data = build("data", node, **known)
    return again.parted()


def _encoding(model: RunConfig) -> Sequence[str]:
    """The facts of data by which items are numbers to a model."""
    modality = get("modality", model.model.modality["name"])
    return modality.encoding  # type: ignore[attr-defined, no-any-return]


def facts_of(run: Path, data: Data, accept: bool) -> Mapping[str, Any]:
    """What the data say of themselves; what they said to a run that is there already. Raises
    UserError for other data than it was begun with, unless they are accepted, and for those that
    its networks are not made for."""
    directory, told = RunDirectory(run), Learned.load(run)
    if told is None:
        return data.facts
    changes = told.changes(data)
    if changes and not accept:
        raise UserError(
            f"{run} was begun with other data: by now {changes}. data.changed=accept goes on with "
            "those of now, and keeps what was learned from out of the held-out part; or give run= "
            "another directory"
        )
    if not directory.config_path.exists():
        return data.facts
    model = directory.config()
    for name in (*_encoding(model), "classes"):
        then, now = plain(model.facts.get(name)), plain(data.facts.get(name))
        if then != now:
            why = f" ({changes})" if changes else ""
            raise UserError(
                f"{run} can not go on with these data{why}: by now {name} is {_short(now)}, and it "
                f"was {_short(then)} when the run was begun, whose networks are made for that. "
                f"Begin another run with them, run=... from={run}"
            )
    return model.facts


def _short(value: object, most: int = 200) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def measured(run: Path, data: Data) -> Data:
    """The data, of which those are held out that were when the run was trained."""
    told = Learned.load(run)
    if told is None:
        return data
    changes, found = told.changes(data), told.split(data)
    count = len(found.held_out())  # type: ignore[arg-type]
    if not count:
        raise UserError(
            f"none of the {len(told.held_out)} items that {run} held out is among its data any "
            f"more ({changes}): all others may have been learned from"
        )
    if changes:
        warnings.warn(
            f"the data of {run} have changed since it was trained: {changes}. It is measured by "
            f"the {count} that were held out then",
            stacklevel=2,
        )
    return found


def taught(run: Path, data: Data, sources: Iterable[str] = ()) -> tuple[Data, Learned]:
    """The data that a run is to learn from, those of now where they have changed (see `facts_of`),
    and what that makes of it.

    Nothing that it, or a run that it comes from, has learned from is held out.
    """
    told = Learned.load(run) or Learned.of(data, _before(sources, data))
    if told.changes(data):
        told = told.with_changed(data)
    return told.split(data), told


def _tell(wrong: int, count: int) -> None:
    if wrong == count:
        raise UserError(
            "all items that are held out were learned from by the model that this one comes from: "
            "there is none to measure by. Give data that have others"
        )
    warnings.warn(
        f"{wrong} of {count} held-out items were learned from by the model that this one comes "
        "from: they are not held out",
        stacklevel=4,
    )


def _before(sources: Iterable[str], data: Data) -> Tensor:
    """What the runs at these paths have learned from, they and those before them."""
    found = [torch.zeros(0, dtype=torch.int64)]
    for source in map(place_of, sources):
        told = Learned.load(source)
        if told is None:
            continue
        found.append(told.every)
        if not RunDirectory(source).config_path.exists():
            continue
        model = RunDirectory(source).config()
        if getattr(data.train(), "sources", None) is not None:
            if load_metadata(source / FILE).get("version") != VERSION:
                warnings.warn(
                    f"{source} told pictures by their pixels, as runs did before: what it has "
                    "learned from can't be recognised, and may be held out now",
                    stacklevel=4,
                )
            continue  # which are known in whatever encoding
        for name in _encoding(model):
            then, now = plain(model.facts.get(name)), plain(data.facts.get(name))
            if then != now:
                warnings.warn(
                    f"{name} of these data is {_short(now)}, and was {_short(then)} of those that "
                    f"{source} learned from, which can't be recognised so: if some are the same, "
                    "what is held out now may have been learned from",
                    stacklevel=4,
                )
    return _distinct(*found)


def _distinct(*numbers: Tensor) -> Tensor:
    return torch.tensor(sorted(set(torch.cat(numbers).tolist())), dtype=torch.int64)
