"""One shard on disk: columns of some items in a safetensors file, whose rows are read apart.

Of a ragged column, `NAME` has the rows one after another and `NAME/ends` where they end, with a 0
in front. Files are the same, byte for byte, for the same columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from anylatent.core.support.columns import Columns, Ragged
from anylatent.core.support.files import UserError

ENDS = "/ends"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LONGEST_HEADER = 2**24


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file: its first byte, its dtype and its shape."""

    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def entry(self) -> int:
        """Bytes of one entry of the first axis."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    @property
    def end(self) -> int:
        return self.start + self.shape[0] * self.entry


def write_shard(file: BinaryIO, pieces: Sequence[Columns]) -> None:
    """Columns that come in pieces, one after another; nothing is copied but for its dtype.

    Where pieces of a column differ in dtype, it has the one that both fit into.
    """
    tensors = {name: _joined(parts) for name, parts in _tensors(pieces).items()}
    order = sorted(tensors, key=lambda name: (-tensors[name][0].dtype.itemsize, name))
    header, start = {}, 0
    for name in order:
        parts = tensors[name]
        shape = [sum(map(len, parts)), *parts[0].shape[1:]]
        end = start + sum(part.nbytes for part in parts)
        kind = _NAMES[parts[0].dtype]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the data are aligned
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        for part in tensors[name]:
            file.write(memory(part.contiguous().flatten().view(torch.uint8)))


def _tensors(pieces: Sequence[Columns]) -> dict[str, list[Tensor]]:
    """The tensors of columns by name, in pieces."""
    found: dict[str, list[Tensor]] = {}
    for name in pieces[0]:
        columns = [piece[name] for piece in pieces]
        found[name] = [c.values if isinstance(c, Ragged) else c for c in columns]
        lengths = [c.lengths for c in columns if isinstance(c, Ragged)]
        if lengths:
            found[name + ENDS] = [torch.cat([torch.zeros(1, dtype=torch.int64), *lengths])]
            found[name + ENDS][0].cumsum_(0)
    return found


def _joined(parts: list[Tensor]) -> list[Tensor]:
    """Of one dtype."""
    dtype = parts[0].dtype
    for part in parts:
        dtype = torch.promote_types(dtype, part.dtype)
    return [part.to(dtype) for part in parts]


def read_places(head: bytes, size: int) -> dict[str, Place]:
    """Where tensors lie in a shard of `size` bytes, by its beginning, which includes the header.

    Raises UserError where that is not what its header says, as of a file that is cut short.
    """
    length = int.from_bytes(head[:8], "little")
    try:
        header: dict[str, Any] = json.loads(head[8 : 8 + length])
        found = {
            name: Place(
                8 + length + entry["data_offsets"][0],
                DTYPES[entry["dtype"]],
                tuple(entry["shape"]),
            )
            for name, entry in header.items()
        }
        end = max(place.end for place in found.values())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"it has no header ({type(error).__name__}: {error})") from error
    if end != size:
        raise UserError(f"it has {size} bytes instead of {end}")
    return found


def memory(flat: Tensor) -> memoryview:
    """The memory of a tensor of bytes."""
    array: Any = flat.numpy()
    return memoryview(array)


def read_head(file: BinaryIO) -> bytes:
    """The first bytes of a shard, its header included."""
    length = file.read(8)
    return length + file.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER))
