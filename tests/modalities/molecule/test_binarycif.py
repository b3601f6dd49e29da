"""BinaryCIF: each encoding by hand, a small whole file, and files that are none."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anylatent.modalities.molecule.files.binarycif import _decode, _MessagePack, read_category

BYTES = {"kind": "ByteArray", "type": 1}


def decode(values: list[int], *encodings: dict[str, Any], kind: str = "<i1") -> list[Any]:
    code = {"<i1": 1, "<i2": 2, "<i4": 3, "<u1": 4, "<f4": 32, "<f8": 33}[kind]
    data = np.array(values, dtype=kind).tobytes()
    encoding = [*encodings, {"kind": "ByteArray", "type": code}]
    return _decode({"data": data, "encoding": encoding}).tolist()


def test_encodings() -> None:
    """The examples of the format's description."""
    assert decode([1, -2, 3], kind="<i4") == [1, -2, 3]
    fixed = {"kind": "FixedPoint", "factor": 100, "srcType": 33}
    assert decode([120, 123, 12], fixed) == pytest.approx([1.2, 1.23, 0.12])
    interval = {"kind": "IntervalQuantization", "min": 1, "max": 2, "numSteps": 3, "srcType": 33}
    assert decode([0, 0, 1, 2, 2, 1], interval) == [1.0, 1.0, 1.5, 2.0, 2.0, 1.5]
    runs = {"kind": "RunLength", "srcType": 3, "srcSize": 6}
    assert decode([1, 3, 2, 1, 3, 2], runs) == [1, 1, 1, 2, 3, 3]
    delta = {"kind": "Delta", "origin": 1000, "srcType": 3}
    assert decode([0, 3, 2, 1], delta) == [1000, 1003, 1005, 1006]


@pytest.mark.parametrize(
    ("stored", "unsigned", "values"),
    [
        ([1, 2, -3, 127, 1], False, [1, 2, -3, 128]),
        ([127, 0, -128, 0, -128, -2], False, [127, -128, -130]),
        ([127, 127, 127, 5], False, [386]),
        ([255, 0, 255, 255, 1, 254], True, [255, 511, 254]),
        ([], False, []),
    ],
)
def test_integers_that_do_not_fit(stored: list[int], unsigned: bool, values: list[int]) -> None:
    packing = {"kind": "IntegerPacking", "isUnsigned": unsigned, "byteCount": 1, "srcSize": 0}
    assert decode(stored, packing, kind="<u1" if unsigned else "<i1") == values


def test_encodings_are_undone_from_the_last_to_the_first() -> None:
    fixed = {"kind": "FixedPoint", "factor": 10, "srcType": 33}
    delta = {"kind": "Delta", "origin": 10, "srcType": 3}
    runs = {"kind": "RunLength", "srcType": 3, "srcSize": 3}
    assert decode([0, 1, 5, 2], fixed, delta, runs) == [1.0, 1.5, 2.0]


# ---- a whole file -----------------------------------------------------------------------------
def packed(value: Any) -> bytes:
    """MessagePack of plain values."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bytes):
        return b"\xc5" + struct.pack(">H", len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return (
            bytes([0xA0 + len(text)]) if len(text) < 32 else b"\xd9" + bytes([len(text)])
        ) + text
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else b"\xd2" + struct.pack(">i", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, list):
        return bytes([0x90 + len(value)]) + b"".join(map(packed, value))
    pairs = b"".join(packed(key) + packed(item) for key, item in value.items())
    return b"\xde" + struct.pack(">H", len(value)) + pairs


@pytest.mark.parametrize(
    "value",
    [0, 127, 128, -5, -40000, 1.5, True, False, None, "", "Å" * 20, "long" * 20, [1, [2, "x"]]],
)
def test_messagepack(value: Any) -> None:
    assert _MessagePack(packed({"key": value})).value() == {"key": value}
    assert _MessagePack(bytes([0xE0])).value() == -32


def column(name: str, values: list[int], mask: list[int] | None = None, **first: Any) -> Any:
    def stored(numbers: list[int], *encodings: Any) -> Any:
        return {"data": bytes(np.array(numbers, dtype="<i1")), "encoding": [*encodings, BYTES]}

    data = stored(values, *([first] if first else []))
    return {"name": name, "data": data, "mask": None if mask is None else stored(mask)}


def write(path: Path) -> Path:
    words = {
        "kind": "StringArray",
        "stringData": "aAB",
        "offsets": bytes([0, 1, 3]),
        "offsetEncoding": [BYTES],
        "dataEncoding": [BYTES],
    }
    text = {"data": bytes(np.array([0, 1, -1, 0], "<i1")), "encoding": [words]}
    fixed = {"kind": "FixedPoint", "factor": 10, "srcType": 33}
    columns = [
        column("x", [5, 0, 20, 0], [0, 1, 0, 2], **fixed),
        column("n", [1, 2, 3, 4]),
        {"name": "word", "data": text, "mask": None},
    ]
    category = {"name": "_atoms", "rowCount": 4, "columns": columns}
    blocks = [{"header": "B", "categories": [category]}]
    path.write_bytes(packed({"encoder": "test", "version": "0.3.0", "dataBlocks": blocks}))
    return path


def test_a_file(tmp_path: Path) -> None:
    found = read_category(write(tmp_path / "a.bcif"), "atoms", ["word", "x", "n"])
    assert found["word"].tolist() == ["a", "AB", "", "a"] and found["n"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(found["x"], [0.5, np.nan, 2.0, np.nan])


def test_files_that_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bcif")
    for category, columns in (("bonds", ["x"]), ("atoms", ["y"])):
        with pytest.raises(ValueError, match=f"is no BinaryCIF file with {category}"):
            read_category(path, category, columns)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="is no BinaryCIF file"):
        read_category(path, "atoms", ["x"])
    path.write_bytes(b"\xc1 nothing")
    with pytest.raises(ValueError, match="0xc1"):
        read_category(path, "atoms", ["x"])
