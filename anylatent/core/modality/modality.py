"""What the rest of the program asks of a modality, its data, its conditions and its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anylatent.core.latents import Latent, LatentSpec, Noise
from anylatent.core.modality.batch import Batch, Item, Outputs
from anylatent.core.modality.data import Data
from anylatent.core.modality.metrics import Metrics
from anylatent.core.registry import group
from anylatent.core.support.files import UserError

if TYPE_CHECKING:
    from PIL import Image


class Modality(ABC):
    """How data of one kind are batched, sized, saved, shown and judged.

    `asks` names the conditions that `blank` and `known` read, such as a size. `completion` is how
    strongly the rest of a sample is drawn to what is known of it: 1 by Gaussian theory. `encoding`
    names the facts of data by which their items are numbers: a model reads no data of others.
    """

    asks: Sequence[str] = ()
    encoding: Sequence[str] = ("shape",)
    completion: float = 1.0

    def collate(self, items: Sequence[Item]) -> Batch:
        """A batch from items; the default stacks tensors and lists the rest."""
        from anylatent.core.modality.batch import stack_items

        return stack_items(items)

    def augment(self, batch: Batch, noise: Noise) -> Batch:
        """Random changes of a batch that leave its meaning, one draw per sample; default none."""
        return batch

    def blank(
        self, spec: LatentSpec, samples: int, noise: Noise, cond: Mapping[str, Any]
    ) -> Latent:
        """The zero latent that sampling starts from; variable sizes are drawn or asked for here."""
        return spec.blank(samples)

    def largest(self, spec: LatentSpec, samples: int, cond: Mapping[str, Any]) -> Latent:
        """The zero latent of the largest sizes that samples may have, for a generator that ends
        them itself."""
        return spec.blank(samples)

    def unit(self, batch: Batch) -> tuple[str, Tensor]:
        """What the likelihood of data is divided by: its name, and how many of it a sample has,
        (B,)."""
        import torch

        column = next(iter(batch.values()))
        return "sample", torch.ones(len(column))

    def size_nats(self, x0: Latent) -> Tensor:
        """-log p of the sizes of samples, (B,), by the law that `blank` draws them from."""
        import torch

        return torch.zeros(x0.batch)

    def raw_spec(self) -> LatentSpec:
        """The space of the data themselves as a latent, for diffusion without an autoencoder."""
        raise UserError(
            f"{type(self).__name__} has no data-space latents: autoencoder=identity is not for it"
        )

    def lift(self, batch: Batch) -> Latent:
        """The data of a batch as a latent of `raw_spec`."""
        raise NotImplementedError

    def lower(self, z: Latent) -> Outputs:
        """Outputs from latents of `raw_spec`; undoes `lift`."""
        raise NotImplementedError

    def log_prob(self, batch: Batch, z: Latent) -> Tensor | None:
        """log p(data | z) in nats, (B,), for a latent of `raw_spec` with a little noise; None where
        there is no such law. Of discrete data a log-probability, of others a log-density."""
        return None

    def known(self, blank: Latent, cond: Mapping[str, Any]) -> Batch | None:
        """Data that samples of the sizes of `blank` must contain, as a batch; None where `cond`
        asks for nothing.

        Its key "given", bool (B, N), says where they count; without it they are the first entries.
        """
        return None

    def complete(self, outputs: Outputs, known: Batch) -> Outputs:
        """Outputs that contain the known data exactly, which an autoencoder only restores."""
        return outputs

    @abstractmethod
    def originals(self, batch: Batch) -> Outputs:
        """The data of a batch in the form of decoded outputs."""

    def join(self, pieces: Sequence[Outputs]) -> Outputs:
        """The outputs of several batches as one; the default is for tensors."""
        import torch

        return torch.cat(list(pieces))

    @abstractmethod
    def save(self, outputs: Outputs, directory: Path, names: Sequence[str]) -> list[Path]:
        """One file (or set of files) per sample, in the modality's usual format."""

    @abstractmethod
    def show(
        self, outputs: Outputs, columns: int | None = None, labels: Sequence[str] = ()
    ) -> Image.Image:
        """One picture of all the samples, `columns` to a row, with a label for each row."""

    def compare(self, originals: Outputs, outputs: Outputs) -> Image.Image:
        """One picture of data above and their reconstructions below."""
        from PIL import Image

        above, below = self.show(originals, len(originals)), self.show(outputs, len(originals))
        size = (max(above.width, below.width), above.height + below.height)
        both = Image.new("RGB", size, "white")
        both.paste(above, (0, 0))
        both.paste(below, (0, above.height))
        return both

    @abstractmethod
    def metrics(self, data: Data) -> Metrics:
        """The figures to judge samples and reconstructions by."""


group("modality", Modality, facts=True)


def histogram_nats(x0: Latent, histogram: Iterable[Sequence[int]], most: int) -> Tensor:
    """-log p of the sizes of samples, (B,), float64, on the CPU: by pairs of a size and its count,
    with one more of each size from 1 to `most`; infinite above."""
    counts = torch.ones(most + 1, dtype=torch.float64)
    counts[0] = 0
    for size, count in histogram:
        counts[size] += count
    sizes = x0.lengths(next(iter(x0.spec.fields))).cpu()
    known = torch.where(sizes <= most, counts[sizes.clamp(max=most)], 0)
    return counts.sum().log() - known.log()
