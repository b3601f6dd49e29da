"""Outputs, and the contract test of them, which must be able to fail."""

import numpy as np
import pytest
import torch
from PIL import Image

import anylatent as al
from anylatent.core.modality import Outputs, join
from anylatent.core.modality.outputs import Comparable


class Marks:
    """Numbers as outputs: a file and a grey square for each."""

    def __init__(self, numbers):
        self.numbers = torch.as_tensor(numbers)

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        return type(self)(self.numbers[index])

    def to(self, device):
        return type(self)(self.numbers.to(device))

    @classmethod
    def join(cls, pieces):
        return cls(torch.cat([piece.numbers for piece in pieces]))

    def save(self, directory, names):
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{name}.txt" for name in names]
        for number, path in zip(self.numbers.tolist(), paths, strict=True):
            path.write_text(f"{number}\n")
        return paths

    def show(self, columns=None, labels=()):
        columns = columns or len(self)
        values = np.full((-(-len(self) // columns), columns), 255, np.uint8)
        values.reshape(-1)[: len(self)] = self.numbers.numpy()
        return Image.fromarray(values).convert("RGB")


def test_good_outputs_pass():
    assert isinstance(Marks([1]), Outputs) and not isinstance(torch.zeros(1), Outputs)
    al.testing.check_outputs(Marks([3, 1, 4, 1, 5]))


class DropsTheLast(Marks):
    def __getitem__(self, index):
        return Marks.__getitem__(self, index if index.start else slice(0, len(self) - 1))


class Shifted(Marks):
    def __getitem__(self, index):
        return type(self)(self.numbers.roll(1)[index])


class Backwards(Marks):
    @classmethod
    def join(cls, pieces):
        return super().join(pieces[::-1])


class Plain(Marks):
    def __getitem__(self, index):
        return Marks(self.numbers[index])


class Rounds(Marks):
    def to(self, device):
        return type(self)(self.numbers // 2)


class NoFolder(Marks):
    def save(self, directory, names):
        return [path.with_suffix(".md") for path in super().save(directory, names)]


class NotWhatItSays(Marks):
    def save(self, directory, names):
        paths = super().save(directory, names)
        return [path.rename(path.with_suffix(".png")) for path in paths]


class Secret(Marks):
    def save(self, directory, names):
        paths = super().save(directory, names)
        (directory / "more.txt").write_text("")
        return paths


class Strange(Marks):
    def save(self, directory, names):
        paths = super().save(directory, names)
        return [path.rename(path.with_suffix(".abc")) for path in paths]


class Blank(Marks):
    def show(self, columns=None, labels=()):
        return Image.new("RGB", (0, 0))


@pytest.mark.parametrize(
    ("kind", "message"),
    (
        (DropsTheLast, r"3 in \[0:4\] of 4"),
        (Shifted, "another sample"),
        (Backwards, "not the whole"),
        (Plain, "a slice is of Marks"),
        (Rounds, "other samples on cpu"),
        (Secret, "told of"),
        (NotWhatItSays, "can't be opened"),
        (Strange, "say in `readers` how to open .abc"),
        (Blank, "an empty picture"),
    ),
)
def test_each_fault_is_found(kind, message):
    with pytest.raises(AssertionError, match=message):
        al.testing.check_outputs(kind([7, 2, 9, 4]))


def test_files_that_are_not_there_are_found():
    with pytest.raises((AssertionError, FileNotFoundError)):
        al.testing.check_outputs(NoFolder([7, 2]))


def test_a_reader_may_be_given():
    seen = []
    al.testing.check_outputs(Strange([7, 2]), {".abc": lambda path: seen.append(path.read_text())})
    assert seen == ["7\n", "2\n"]


def test_originals_are_compared_above_what_is_restored():
    both = np.asarray(al.compare(Marks([10, 20, 30]), Marks([11, 21, 31])))
    assert both[..., 0].tolist() == [[10, 20, 30], [11, 21, 31]]


def test_outputs_may_be_compared_in_their_own_way():
    class Beside(Marks):
        def beside(self, originals):
            return Image.new("RGB", (len(self), len(originals) + 40))

    assert isinstance(Beside([1]), Comparable) and not isinstance(Marks([1]), Comparable)
    assert al.compare(Marks([1, 2]), Beside([1, 2])).size == (2, 42)


def test_batches_are_joined_in_order():
    assert join([Marks([1, 2]), Marks([3])]).numbers.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="at least one batch"):
        join([])
