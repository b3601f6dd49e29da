"""Columns of any number of items on disk, made once and read row by row, never held in memory.

They lie in shards, files of `rows` items each, which are whole or not there: written under another
name, synced, renamed, and then named with their size in `index.json`. What is not named there, or
has another size or no header, is made again. All processes that want the same shards make them
together, each those that no other has claimed, on whatever machines see the directory; one that is
killed leaves what it has finished, and the next goes on from there.

Rows are read by `pread`, not mapped: pages of a mapped file count as memory of each process until
the system takes them back, which for rows read at random soon is the whole file.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from torch import Tensor

from anylatent.core.support.columns import Column, Columns
from anylatent.core.support.files import UserError, replacing, save_text
from anylatent.core.support.locks import Claims
from anylatent.core.support.progress import bar
from anylatent.core.support.shard_file import write_shard
from anylatent.core.support.shard_reader import ShardReader, Spans

SHARD = 2**25
"""Bytes that a shard should have: more would cost memory while it is made, fewer many files."""

Advance = Callable[[int], None]


class Shards:
    """`size` items in the files of a directory, `rows` to a file; see the module.

    A shard that can't be written is kept in memory, with a warning. `held` keeps others from
    removing them, for as long as the object lives.
    """

    def __init__(self, directory: Path, size: int, rows: int, held: object = None) -> None:
        if size < 1 or rows < 1:
            raise ValueError(f"need at least one item and one row to a shard, got {size}, {rows}")
        self.directory, self.size, self.rows, self.held = directory, size, rows, held
        self._reader, self._writes = ShardReader(rows), True

    def __len__(self) -> int:
        return self.size

    # ---- reading ------------------------------------------------------------------------------
    def names(self) -> list[str]:
        """The columns."""
        return self._reader.names()

    def take(self, name: str, items: Tensor, cut: Spans | None = None) -> Column:
        """A column's rows of some items (N,), in their order; of a ragged one only the entries
        from the first to before the second of `cut`, two tensors (N,), where it is given."""
        if len(items) == 0 or int(items.min()) < 0 or int(items.max()) >= self.size:
            raise IndexError(f"items {items.tolist()} of {self.size}")
        return self._reader.take(name, items, cut)

    def lengths(self, name: str) -> Tensor:
        """The length of every row of a ragged column, (size,) int64."""
        return self._reader.lengths(name)

    # ---- making -------------------------------------------------------------------------------
    def fill(self, make: Callable[[range], Iterable[Columns]], description: str) -> bool:
        """Makes the shards that are not there; returns when all are, whoever made them, and
        whether any was not.

        `make` yields the columns of the items in a range, in pieces. One of the processes shows
        how far they are.
        """
        missing = self._missing(range(self._count), warn=True)
        if not missing:
            return False
        total = sum(len(self._items(number)) for number in missing)
        with Claims(self.directory / "claims") as claims:
            with claims.claim(self._count + 1, wait=False) as first:
                shown = bar(description, total) if first else nullcontext(_nothing)
                with shown as advance:
                    for wait in (False, True):  # at last what others had begun
                        for number in missing:
                            self._make(number, make, claims, wait, advance)
        return True

    def _make(
        self,
        number: int,
        make: Callable[[range], Iterable[Columns]],
        claims: Claims,
        wait: bool,
        advance: Advance,
    ) -> None:
        """Makes one shard, unless it is there or, without `wait`, another process makes it."""
        if number in self._reader:
            return
        with claims.claim(number, wait) as mine:
            if mine and self._missing([number]):
                pieces = list(_counted(make(self._items(number)), advance))
                self._keep(number, pieces, claims)
            elif mine:
                advance(len(self._items(number)))

    def _keep(self, number: int, pieces: list[Columns], claims: Claims) -> None:
        """Writes a shard and names it in the index; holds it in memory where that fails."""
        path = self._path(number)
        if self._writes:
            try:
                self._write(path, pieces, claims)
                self._reader.add(number, path)
                return
            except UserError as error:
                text = f"{error}; the rest is kept in memory, and made again next time"
                warnings.warn(text, stacklevel=4)
                self._writes = False
        buffer = io.BytesIO()
        write_shard(buffer, pieces)
        self._reader.add(number, buffer.getvalue())

    def _write(self, path: Path, pieces: list[Columns], claims: Claims) -> None:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            write_shard(file, pieces)
        with claims.claim(self._count):
            files = {**self._index(), path.name: path.stat().st_size}
            index = {"size": self.size, "rows": self.rows, "files": files}
            save_text(self.directory / "index.json", json.dumps(index, indent=0))

    # ---- what is there ------------------------------------------------------------------------
    @property
    def _count(self) -> int:
        return -(-self.size // self.rows)

    def _items(self, number: int) -> range:
        return range(number * self.rows, min((number + 1) * self.rows, self.size))

    def _path(self, number: int) -> Path:
        return self.directory / f"shard-{number:05d}.safetensors"

    def _index(self, damage: list[str] | None = None) -> dict[str, int]:
        """The sizes of the files that are whole, by name."""
        path = self.directory / "index.json"
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            alike = (index["size"], index["rows"]) == (self.size, self.rows)
            return dict(index["files"]) if alike else {}
        except OSError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            (damage if damage is not None else []).append(f"{path.name}: {error}")
            return {}

    def _missing(self, numbers: Iterable[int], warn: bool = False) -> list[int]:
        """Those of the shards that are not whole; the others can be read from now on."""
        damage: list[str] = []
        index, missing = self._index(damage), []
        for number in numbers:
            path = self._path(number)
            try:
                if path.name in index:
                    self._open(number, path, index[path.name])
                else:
                    missing.append(number)
            except (OSError, UserError) as error:
                missing.append(number)
                damage.append(f"{path.name}: {error}")
        if damage and warn:
            what = f"{len(damage)} of the files in {self.directory} are damaged and are made again"
            warnings.warn(f"{what} ({damage[0]})", stacklevel=3)
        return missing

    def _open(self, number: int, path: Path, size: int) -> None:
        found = path.stat().st_size
        if found != size:
            raise UserError(f"it has {found} bytes instead of {size}")
        self._reader.add(number, path)


def rows_of(bytes_each: float, multiple: int = 1) -> int:
    """How many items of a size make a shard, a multiple of what is made at once."""
    return max(1, int(SHARD / bytes_each) // multiple) * multiple


def _counted(pieces: Iterable[Columns], advance: Advance) -> Iterator[Columns]:
    for piece in pieces:
        yield piece
        advance(len(next(iter(piece.values()))))


def _nothing(pieces: int) -> None:
    """What advances no bar."""
