"""What a run has learned from, and what it has not: a digest for each item of its data.

    items.safetensors    train, held_out, before: int64, a number for each item; `before` are those
                         that the models learned from which this one came from

A run's figures are of items that neither it nor they have learned from, though its data may have
changed since.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anylatent.core.modality import Data
from anylatent.core.runs.records.known_split import KnownSplit, digests
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.files import (
    UserError,
    load_metadata,
    load_weights,
    place_of,
    save_weights,
)

FILE = "items.safetensors"


@dataclass(frozen=True)
class Learned:
    """Items that were learned from and held out, by digest, and those learned from before. `own`:
    the parts are those that the data have of themselves."""

    fingerprint: str
    train: Tensor
    held_out: Tensor
    before: Tensor
    own: bool = True

    @classmethod
    def of(cls, data: Data, before: Tensor) -> Learned:
        """Of data as they are, but that nothing learned from before is held out."""
        train, held_out = digests(data)
        wrong = torch.isin(held_out, before)
        if bool(wrong.any()):
            _tell(int(wrong.sum()), len(wrong))
        return cls(data.fingerprint, train, held_out[~wrong], before, not bool(wrong.any()))

    @classmethod
    def load(cls, run: Path) -> Learned | None:
        """None for a run that does not tell."""
        path = run / FILE
        if not path.exists():
            return None
        tensors, metadata = load_weights(path)
        try:
            train, held_out, before = (tensors[name] for name in ("train", "held_out", "before"))
            fingerprint, own = metadata["fingerprint"], metadata["own"] == "yes"
        except KeyError as error:
            raise UserError(f"{path} lacks {error}: it tells no items of a run") from None
        if any(part.dtype != torch.int64 or part.ndim != 1 for part in (train, held_out, before)):
            raise UserError(f"{path} must have integers in rows: it tells no items of a run")
        return cls(fingerprint, train, held_out, before, own)

    def save(self, run: Path) -> None:
        """Writes the file, unless it says so already."""
        tensors = {"train": self.train, "held_out": self.held_out, "before": self.before}
        told = {"fingerprint": self.fingerprint, "own": "yes" if self.own else "no"}
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
        now, then = torch.cat(digests(data)), torch.cat([self.train, self.held_out, self.before])
        added = int((~torch.isin(now, then)).sum())
        removed = int((~torch.isin(torch.cat([self.train, self.held_out]), now)).sum())
        if not added and not removed:
            return ""
        return f"{added} items added and {removed} removed (one that was changed counts as both)"

    def split(self, data: Data) -> Data:
        """The data in these parts."""
        if self.own and data.fingerprint == self.fingerprint:
            return data
        now = torch.cat(digests(data))
        held = torch.isin(now, self.held_out) & ~torch.isin(now, self.every)
        learned = torch.isin(now, self.train) & ~held
        return KnownSplit(data, *(mask.nonzero().flatten().tolist() for mask in (learned, held)))


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


def taught(
    run: Path, data: Data, accept: bool, sources: Iterable[str] = ()
) -> tuple[Data, Learned]:
    """The data that a run is to learn from, and what that makes of it. Raises UserError for other
    data than it was begun with, unless they are accepted.

    Nothing that it, or a run that it comes from, has learned from is held out.
    """
    told = Learned.load(run) or Learned.of(data, _before(sources))
    changes = told.changes(data)
    if changes and not accept:
        raise UserError(
            f"{run} was begun with other data: by now {changes}. data.changed=accept goes on with "
            "those of now, and keeps what was learned from out of the held-out part; or give run= "
            "another directory"
        )
    if changes:
        train, held_out = digests(data)
        now, kept = torch.cat([train, held_out]), torch.cat([told.held_out, held_out])
        held = torch.isin(now, kept) & ~torch.isin(now, told.every)
        every = _distinct(told.train, now[~held])
        told = Learned(data.fingerprint, every, now[held], told.before, own=False)
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


def _before(sources: Iterable[str]) -> Tensor:
    """What the runs at these paths have learned from, they and those before them."""
    found = [torch.zeros(0, dtype=torch.int64)]
    for source in sources:
        told = Learned.load(place_of(source))
        found += [] if told is None else [told.every]
    return _distinct(*found)


def _distinct(*numbers: Tensor) -> Tensor:
    return torch.tensor(sorted(set(torch.cat(numbers).tolist())), dtype=torch.int64)
