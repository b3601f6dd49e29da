"""Which of a folder's pictures are used, once they have been read."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from anylatent.core.support.columns import Ragged
from anylatent.core.support.shards import Shards
from anylatent.core.support.stored import Stored
from anylatent.modalities.shared.folder import CLOSED
from anylatent.modalities.shared.layout import HELD_OUT, TRAIN, Layout
from anylatent.modalities.shared.report import Report, shown
from anylatent.modalities.shared.strings import tensor_text


def leave_unread(names: Sequence[Path], stored: Shards, report: Report) -> None:
    """Tells the report of the pictures that could not be read, and why."""
    bad = (~Stored(stored, "good")[range(len(names))][:, 0]).nonzero()[:, 0]
    if not len(bad):
        return
    reasons = stored.take("reason", bad)
    assert isinstance(reasons, Ragged)
    texts = torch.split(reasons.values, reasons.lengths.tolist())
    for i, text in zip(bad.tolist(), texts, strict=True):
        report.leave(CLOSED, names[i], tensor_text(text))


def copy_key(pixels: Tensor) -> Tensor:
    """128 bits that tell pictures apart, int64 (2,)."""
    found = bytearray(blake2b(pixels.numpy().tobytes(), digest_size=16).digest())
    return torch.frombuffer(found, dtype=torch.int64).clone()


def first_copies(stored: Shards, names: Sequence[str]) -> list[str]:
    """Of each picture, the name of the first one with the same pixels."""
    digests, first = (
        Stored(stored, "copy")[range(len(names))].tolist(),
        dict[tuple[int, ...], str](),
    )
    pairs = zip(digests, names, strict=True)
    return [first.setdefault(tuple(digest), name) for digest, name in pairs]


class Places:
    """Where pictures lie: their paths, the parts of the data that folders say, their classes."""

    def __init__(self, paths: Sequence[Path], layout: Layout, classes: Sequence[str]) -> None:
        self.names = [shown(path) for path in paths]
        self._layout, self._classes = layout, classes

    def kept(self, first: Sequence[str], rows: Sequence[int], report: Report) -> list[int]:
        """Of some pictures those that are neither beside the folders of a split nor on both of its
        sides; `first` names the first copy of each."""
        parts = self._layout.parts
        if not self._layout.given:
            return list(rows)
        learned, kept = {first[i] for i in rows if parts[i] == TRAIN}, list[int]()
        for i in rows:
            if parts[i] is None:
                report.leave("lie beside the folders of the split", self.names[i])
            elif parts[i] == HELD_OUT and first[i] in learned:
                report.leave("are held-out copies of what is learned from", self.names[i])
            else:
                kept.append(i)
        self._note_classes(kept, report)
        return kept

    def _note_classes(self, rows: Sequence[int], report: Report) -> None:
        if self._classes:
            known = {self._classes[i] for i in rows if self._layout.parts[i] == TRAIN}
            for name in sorted({self._classes[i] for i in rows} - known):
                report.note("classes that are held out and never learned", name)
