"""The contracts of outputs, and of figures about them."""

from __future__ import annotations

import copy
import csv
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from anylatent.core.modality import Metric, Outputs, compare, join

Reader: TypeAlias = Callable[[Path], object]
"""Opens a file of a format as its users do, and raises for one that is broken."""


def check_outputs(outputs: Outputs, readers: Mapping[str, Reader] | None = None) -> None:
    """Slices are the samples that they name, joined they are the whole; files that open; pictures;
    the same samples on any device.

    `readers` open files by their suffix; those of .png, .txt, .json, .jsonl and .csv are known.
    Two samples are the same if their files are, byte by byte. Leave at most 20 samples to it.
    """
    name, size = type(outputs).__name__, len(outputs)
    assert isinstance(outputs, Outputs), f"{name}: len, slices, to, join, save and show are wanted"
    assert size > 0, f"{name}: give at least one sample"
    whole = files_of(outputs)
    _check_slices(outputs, whole, name)
    _check_files(outputs, {**READERS, **(readers or {})}, name)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        moved = outputs.to(device)
        assert type(moved) is type(outputs), f"{name}: {type(moved).__name__} on {device}"
        assert files_of(moved) == whole, f"{name}: other samples on {device}"
    labels = [str(i) for i in range(size)]
    pictures = outputs.show(), outputs.show(1, labels), compare(outputs, outputs)
    for picture in pictures:
        assert picture.width > 0 and picture.height > 0, f"{name}: an empty picture"


def _check_slices(outputs: Outputs, whole: Mapping[str, bytes], name: str) -> None:
    size = len(outputs)
    for start, stop in ((0, size), (0, 1), (1, size), (0, 0), (0, size + 5), (size - 1, size)):
        part, wanted = outputs[start:stop], len(range(size)[start:stop])
        assert type(part) is type(outputs), f"{name}: a slice is of {type(part).__name__}"
        assert len(part) == wanted, f"{name}: {len(part)} in [{start}:{stop}] of {size}"
    singles = [outputs[i : i + 1] for i in range(size)]
    for i, single in enumerate(singles):
        own = {path: data for path, data in whole.items() if path.startswith(_name(i))}
        found = files_of(single, i)
        assert own and own.items() <= found.items(), f"{name}: [{i}:{i + 1}] is another sample"
    assert files_of(join(singles)) == whole, f"{name}: slices, joined, are not the whole"
    twice = join([outputs, outputs[:1]])
    assert len(twice) == size + 1, f"{name}: {size} and 1 joined are {len(twice)}"


def _check_files(outputs: Outputs, readers: Mapping[str, Reader], name: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "new" / "er"
        paths = outputs.save(folder, [_name(i) for i in range(len(outputs))])
        assert len(paths) >= len(outputs), f"{name}: {len(paths)} files of {len(outputs)} samples"
        written = {path for path in folder.rglob("*") if path.is_file()}
        assert set(paths) == written, f"{name}: told of {sorted(paths)}, wrote {sorted(written)}"
        for path in paths:
            assert path.suffix in readers, f"{name}: say in `readers` how to open {path.suffix}"
            try:
                readers[path.suffix](path)
            except Exception as error:
                raise AssertionError(f"{name}: {path.name} can't be opened: {error}") from error


def files_of(outputs: Outputs, first: int = 0) -> dict[str, bytes]:
    """What `save` writes, by file name; samples are numbered from `first`."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        paths = outputs.save(folder, [_name(first + i) for i in range(len(outputs))])
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _name(index: int) -> str:
    return f"sample_{index:05d}"


def _read_picture(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()


def _read_table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def _read_lines(path: Path) -> list[object]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a string may hold other breaks
    return [json.loads(line) for line in lines]


READERS: Mapping[str, Reader] = {
    ".png": _read_picture,
    ".txt": lambda path: path.read_text(encoding="utf-8"),
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _read_lines,
    ".csv": _read_table,
}


def check_metric(
    metric: Metric, outputs: Outputs, columns: Mapping[str, Any], given: Tensor | None = None
) -> None:
    """`outputs` as a modality decodes them, drawn under `columns`; also restored by themselves, and
    completed by themselves where it is said what of them is `given`, (B, T).

    There is some figure; figures are plain floats, no NaN, the same each time; those of data that
    were not restored are among those of reconstructions; notes are words. Neither outputs nor
    columns are changed.
    """
    name, samples, kept = type(metric).__name__, files_of(outputs), copy.deepcopy(dict(columns))
    first, again = (_figures(metric, outputs, columns, given) for _ in range(2))
    for where, row in first.items():
        for figure, value in row.items():
            told = f"{name}: '{figure}' of {where} is {value!r}"
            assert isinstance(figure, str) and type(value) is float, f"{told}, not a float"
            assert value == value, f"{told}: leave out what has no meaning"
    assert first == again, f"{name}: other figures each time: {first} and {again}"
    assert any(first.values()), f"{name} has no figures at all"
    alone = set(first["unrestored"]) - set(first["reconstructions"])
    assert not alone, f"{name}: {sorted(alone)} of data not restored, but not of reconstructions"
    notes = metric.notes
    words = not isinstance(notes, str) and all(isinstance(note, str) and note for note in notes)
    assert words, f"{name}: notes are a list of sentences, got {notes!r}"
    same = files_of(outputs) == samples and repr(dict(columns)) == repr(kept)
    assert same, f"{name} changes the outputs or the columns"


def _figures(
    metric: Metric, outputs: Outputs, columns: Mapping[str, Any], given: Tensor | None
) -> dict[str, dict[str, float]]:
    """All rows that there are."""
    done = {} if given is None else metric.completions(outputs, [outputs, outputs], given, columns)
    return {
        **{f"completed: {name}": row for name, row in done.items()},
        "samples": metric.samples(outputs, columns),
        "reconstructions": metric.reconstructions(outputs, outputs),
        "unrestored": metric.unrestored(outputs),
        **metric.baselines(list(columns)),
    }
