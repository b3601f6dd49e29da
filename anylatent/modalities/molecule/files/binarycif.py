"""Reads columns of a BinaryCIF file (github.com/molstar/BinaryCIF, version 0.3).

Such a file is MessagePack; a column is bytes with the encodings that made them, undone from the
last to the first. Only what BinaryCIF uses of MessagePack is read, and nothing is executed.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# by first byte: struct format of a number, or of the length of what follows
_FORMS = (">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q")
_NUMBERS = {0xCA + place: form for place, form in enumerate(_FORMS)}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_SIZED = {0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I")}
_SIZED |= {0xD9: ("text", ">B"), 0xDA: ("text", ">H"), 0xDB: ("text", ">I")}
_SIZED |= {0xDC: ("list", ">H"), 0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I")}
_TYPES = {1: "<i1", 2: "<i2", 3: "<i4", 4: "<u1", 5: "<u2", 6: "<u4", 32: "<f4", 33: "<f8"}

# what reading a damaged file may end with
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class _MessagePack:
    """A cursor over bytes that returns one value after the other; bytes are not copied."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = memoryview(data), 0

    def value(self) -> Any:
        code = self.data[self.at]
        self.at += 1
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code < 0xC0:
            kind, mask = (("map", 0x0F), ("list", 0x0F), ("text", 0x1F))[min((code >> 4) - 8, 2)]
            return self._sized(kind, code & mask)
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code not in _SIZED:
            raise ValueError(f"byte {code:#x} is not used by BinaryCIF")
        kind, length = _SIZED[code]
        return self._sized(kind, int(self._number(length)))

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return number

    def _sized(self, kind: str, size: int) -> Any:
        if kind == "list":
            return [self.value() for _ in range(size)]
        if kind == "map":
            return {self.value(): self.value() for _ in range(size)}
        self.at += size
        found = self.data[self.at - size : self.at]
        return found if kind == "bytes" else bytes(found).decode()


def read_category(path: Path, category: str, columns: Iterable[str]) -> dict[str, Array]:
    """Columns of a category of the first block, in which what is missing is "", 0 or NaN.

    Raises ValueError for what is no BinaryCIF file or lacks a column.
    """
    try:
        block = _MessagePack(path.read_bytes()).value()["dataBlocks"][0]
        found = {c["name"]: c for c in block["categories"]}[f"_{category.lstrip('_')}"]["columns"]
        by_name = {column["name"]: column for column in found}
        return {name: _column(by_name[name]) for name in columns}
    except _DAMAGE as error:
        raise ValueError(f"{path} is no BinaryCIF file with {category}: {error!r}") from error


def read_categories(
    path: Path, categories: Iterable[str]
) -> list[tuple[str, dict[str, dict[str, list[str]]]]]:
    """The data blocks by name, with all columns of some categories as text, "" where missing.

    Raises ValueError for what is no BinaryCIF file, and for a column of another length.
    """
    import numpy as np

    wanted = [f"_{name}" for name in categories]
    try:
        blocks = _MessagePack(path.read_bytes()).value()["dataBlocks"]
        with np.errstate(all="ignore"):
            return [
                (str(block["header"]), dict(_wanted(block["categories"], wanted)))
                for block in blocks
            ]
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(
            f"{path.name} is no whole BinaryCIF file ({type(error).__name__}: {reason})"
        ) from error


def _wanted(
    categories: Iterable[Mapping[str, Any]], names: Collection[str]
) -> Iterator[tuple[str, dict[str, list[str]]]]:
    for category in categories:
        if category["name"] in names:
            yield str(category["name"])[1:], _texts(category)


def _texts(category: Mapping[str, Any]) -> dict[str, list[str]]:
    """The columns of a category as text; ValueError for one that has not all of its rows."""
    found = {}
    for column in category["columns"]:
        texts = [str(value) for value in _column(column).tolist()]
        if column["mask"] is not None:
            mask = _decode(column["mask"]).tolist()
            texts = ["" if hidden else text for text, hidden in zip(texts, mask, strict=True)]
        if len(texts) != category["rowCount"]:
            name, rows = column["name"], category["rowCount"]
            raise ValueError(f"column {name} has {len(texts)} rows of {rows}")
        found[str(column["name"])] = texts
    return found


def _column(column: Mapping[str, Any]) -> Array:
    import numpy as np

    found = _decode(column["data"])
    if column["mask"] is not None and found.dtype.kind == "f":
        found = np.where(_decode(column["mask"]) == 0, found, np.nan)
    return found


def _decode(data: Mapping[str, Any]) -> Array:
    value: Any = data["data"]
    for encoding in reversed(data["encoding"]):
        value = _DECODERS[encoding["kind"]](value, encoding)
    found: Array = value
    return found


def _byte_array(data: Any, encoding: Mapping[str, Any]) -> Array:
    import numpy as np

    return np.frombuffer(data, dtype=_TYPES[encoding["type"]])


def _fixed_point(data: Array, encoding: Mapping[str, Any]) -> Array:
    found: Array = data.astype(_TYPES[encoding["srcType"]]) / encoding["factor"]
    return found


def _interval(data: Array, encoding: Mapping[str, Any]) -> Array:
    step = (encoding["max"] - encoding["min"]) / (encoding["numSteps"] - 1)
    found: Array = encoding["min"] + data * step
    return found


def _run_length(data: Array, encoding: Mapping[str, Any]) -> Array:
    import numpy as np

    if int(data[1::2].astype("int64").sum()) != encoding["srcSize"]:
        raise ValueError(f"runs are not of {encoding['srcSize']} numbers")
    return np.repeat(data[::2], data[1::2])


def _delta(data: Array, encoding: Mapping[str, Any]) -> Array:
    found: Array = data.cumsum(dtype="int64") + encoding["origin"]
    return found


def _integer_packing(data: Array, encoding: Mapping[str, Any]) -> Array:
    """A number beyond the type's range is a run of its extreme values and a remainder."""
    import numpy as np

    limits = np.iinfo(data.dtype)
    full = data == limits.max
    if not encoding["isUnsigned"]:
        full |= data == limits.min
    if not len(data):
        return data
    starts = np.flatnonzero(np.append(True, ~full[:-1]))
    found: Array = np.add.reduceat(data.astype("int64"), starts)
    return found


def _string_array(data: Any, encoding: Mapping[str, Any]) -> Array:
    import numpy as np

    def part(value: Any, how: str) -> Array:
        return _decode({"data": value, "encoding": encoding[how]})

    offsets = part(encoding["offsets"], "offsetEncoding").tolist()
    text = encoding["stringData"]
    words = [text[a:b] for a, b in zip(offsets, offsets[1:], strict=False)]
    return np.array([*words, ""], dtype=object)[part(data, "dataEncoding")]


_DECODERS = {
    "ByteArray": _byte_array,
    "FixedPoint": _fixed_point,
    "IntervalQuantization": _interval,
    "RunLength": _run_length,
    "Delta": _delta,
    "IntegerPacking": _integer_packing,
    "StringArray": _string_array,
}
