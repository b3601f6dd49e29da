"""What the rest of the program does with decoded samples, whatever they are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import torch

if TYPE_CHECKING:
    from PIL import Image


@runtime_checkable
class Outputs(Protocol):
    """A batch of decoded samples, in the form of a modality: pictures, molecules, texts.

    It brings along whatever its files and pictures need. Most are sequences too, of single samples
    in a form of their own. `testing.check_outputs` says whether a class keeps to this.
    """

    def __len__(self) -> int:
        """How many samples there are."""

    def __getitem__(self, index: slice, /) -> Self:
        """Some of them, in the same form."""

    def to(self, device: torch.device | str) -> Self:
        """The same samples with their tensors on a device."""

    @classmethod
    def join(cls, pieces: Sequence[Self]) -> Self:
        """Several batches, at least one, as one."""

    def save(self, directory: Path, names: Sequence[str]) -> list[Path]:
        """Writes one file (or set of files) per sample, in the modality's usual format, into a
        directory that is made where it is missing; returns the paths of all."""

    def show(self, columns: int | None = None, labels: Sequence[str] = ()) -> Image.Image:
        """One picture of all the samples, `columns` to a row, with a label for each row."""


@runtime_checkable
class Comparable(Protocol):
    """Outputs that are best seen beside the originals in a way of their own: from the same side,
    or with the differences in colour."""

    def beside(self, originals: Any) -> Image.Image:
        """One picture of the originals, outputs of the same class, and of these."""


@runtime_checkable
class Lossy(Protocol):
    """Outputs whose usual files do not keep every number, as films do not."""

    def exact(self) -> Self:
        """The same, to be saved in files that do."""


def exact(outputs: Outputs) -> Outputs:
    """The same outputs, to be saved in files that keep every number."""
    return outputs.exact() if isinstance(outputs, Lossy) else outputs


def join(pieces: Sequence[Outputs]) -> Outputs:
    """Several batches of outputs as one. Raises ValueError without any."""
    if not pieces:
        raise ValueError("no outputs to join: at least one batch is needed")
    return pieces[0].join(pieces)


def compare(originals: Outputs, restored: Outputs) -> Image.Image:
    """One picture of data above and their reconstructions below, in the outputs' own way where
    they have one (`Comparable`)."""
    if isinstance(restored, Comparable):
        return restored.beside(originals)
    from PIL import Image

    above, below = originals.show(len(originals)), restored.show(len(originals))
    size = (max(above.width, below.width), above.height + below.height)
    both = Image.new("RGB", size, "white")
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height))
    return both
