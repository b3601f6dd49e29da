"""Shards: what is read is what was made, whatever happens while it is made."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset

from anylatent.core.support import files
from anylatent.core.support.columns import Ragged
from anylatent.core.support.files import UserError
from anylatent.core.support.locks import Claims
from anylatent.core.support.shards import Shards, rows_of
from tests.core.support.maker import ROWS, SIZE, columns, pieces

COUNT = -(-SIZE // ROWS)


def same(found, wanted):
    if isinstance(wanted, Ragged):
        return torch.equal(found.lengths, wanted.lengths) and same(found.values, wanted.values)
    return found.dtype == wanted.dtype and torch.equal(found, wanted)


def filled(directory, make=pieces, size=SIZE, rows=ROWS):
    shards = Shards(directory, size, rows)
    shards.fill(make, "making")
    return shards


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.glob("shard-*")}


def start(directory, seconds=0.0, *others):
    command = [sys.executable, "-m", "tests.core.support.maker", directory, seconds, *others]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)


def check_all(shards):
    items = torch.arange(SIZE)
    for name, wanted in columns(range(SIZE)).items():
        assert same(shards.take(name, items), wanted)


# ---- reading ----------------------------------------------------------------------------------
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_rows_at_random_are_those_of_the_tensors(tmp_path_factory, size, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 4, (size,), generator=generator)
    whole = {
        "fixed": torch.randn(size, 2, 3, generator=generator),
        "flags": torch.rand(size, generator=generator) < 0.5,
        "half": torch.randn(size, 5, generator=generator).half(),
        "long": torch.randint(0, 2**40, (size,), generator=generator),
        "ragged": Ragged(torch.randn(int(lengths.sum()), 2, generator=generator), lengths),
        "words": Ragged(torch.arange(int(lengths.sum())).byte(), lengths),
    }

    def make(items):
        for item in items:  # pieces of one row
            row = torch.tensor([item])
            yield {n: c.select(row) if isinstance(c, Ragged) else c[row] for n, c in whole.items()}

    directory = tmp_path_factory.mktemp("shards")
    for shards in (filled(directory, make, size, rows), filled(directory, None, size, rows)):
        assert sorted(shards.names()) == sorted(whole) and len(shards) == size
        items = torch.randint(0, size, (9,), generator=generator)
        for chosen in (items, torch.arange(size), torch.arange(size).flip(0), items[:1]):
            for name, column in whole.items():
                ragged = isinstance(column, Ragged)
                wanted = column.select(chosen) if ragged else column[chosen]
                assert same(shards.take(name, chosen), wanted), name
        assert torch.equal(shards.lengths("ragged"), lengths)


def test_parts_of_rows(tmp_path):
    shards = filled(tmp_path)
    items = torch.tensor([7, 2, 23, 4, 3])  # of 3, 2, 3, 0 and 3 entries
    first, last = torch.tensor([1, 0, 0, 0, 2]), torch.tensor([3, 1, 3, 0, 2])
    whole = columns(range(SIZE))["y"].select(items)
    rows = whole.values.split(whole.lengths.tolist())
    wanted = [row[a:b] for row, a, b in zip(rows, first.tolist(), last.tolist(), strict=True)]
    found = shards.take("y", items, (first, last))
    assert found.lengths.tolist() == [2, 1, 3, 0, 0]
    assert torch.equal(found.values, torch.cat(wanted))
    assert same(shards.take("x", items, (first, last)), columns(range(SIZE))["x"][items])
    for bad in ((first, last + 1), (first - 1, last), (last, first)):
        with pytest.raises(IndexError, match="entries"):
            shards.take("y", items, bad)


def test_shards_of_different_dtypes_are_read_in_the_wider(tmp_path):
    whole, wide = torch.arange(12.0), torch.arange(120.0).view(12, 10)
    lengths = torch.arange(12) % 3

    def make(items):
        kind = torch.float16 if items.start == 3 else torch.float32
        index = torch.arange(items.start, items.stop)
        own = lengths[index]
        yield {
            "few": whole[index].to(kind),
            "x": wide[index].to(kind),
            "y": Ragged(whole[index].repeat_interleave(own).to(kind), own),
        }

    shards = filled(tmp_path, make, 12, 3)
    items = torch.tensor([4, 11, 0, 3, 5, 8, 4])
    assert same(shards.take("x", items), wide[items])
    assert same(shards.take("few", items), whole[items])
    wanted = Ragged(whole[items].repeat_interleave(lengths[items]), lengths[items])
    assert same(shards.take("y", items), wanted)
    assert shards.take("x", torch.tensor([3, 5])).dtype == torch.float16


def test_pieces_of_different_dtypes_are_kept_in_the_wider(tmp_path):
    third = torch.tensor([1 / 3])
    shards = filled(tmp_path, lambda _: iter([{"x": third.half()}, {"x": third}]), 2, 2)
    assert same(shards.take("x", torch.tensor([0, 1])), torch.cat([third.half().float(), third]))


def test_items_that_are_not_there(tmp_path):
    shards = filled(tmp_path)
    for bad in ([SIZE], [-1], []):
        with pytest.raises(IndexError, match=f"of {SIZE}"):
            shards.take("x", torch.tensor(bad, dtype=torch.long))


def test_files_are_safetensors(tmp_path):
    filled(tmp_path)
    wanted = columns(range(5, 10))
    found = load_file(tmp_path / "shard-00001.safetensors")
    assert torch.equal(found["x"], wanted["x"]) and torch.equal(found["y"], wanted["y"].values)
    assert found["y/ends"].tolist() == [0, *wanted["y"].lengths.cumsum(0).tolist()]
    assert all(
        (len(data) % 4, data[:8][2:]) == (0, bytes(6)) for data in contents(tmp_path).values()
    )


def test_a_shard_has_about_its_bytes_and_whole_batches():
    assert rows_of(2**10) == 2**15 and rows_of(2**10, 64) % 64 == 0
    assert rows_of(1e6, 64) == 64 and rows_of(1e9) == 1


class Items(Dataset):
    def __init__(self, shards):
        self.shards = shards

    def __getitems__(self, indices):
        return self.shards.take("y", torch.tensor(indices)).values.sum(1)


def test_workers_read_too(tmp_path):
    shards = filled(tmp_path)
    shards.take("y", torch.tensor([3]))  # its file is open when the workers come
    batches = [torch.randint(0, SIZE, (6,)).tolist() for _ in range(12)]
    options = {"batch_sampler": batches, "num_workers": 2, "collate_fn": list}
    for batch, found in zip(batches, DataLoader(Items(shards), **options), strict=True):
        wanted = columns(range(SIZE))["y"].select(torch.tensor(batch)).values.sum(1)
        assert torch.equal(torch.stack(found) if found else torch.empty(0), wanted)


def test_more_files_than_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr("anylatent.core.support.shard_reader._OPEN_FILES", 3)
    shards = filled(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        check_all(shards)
        assert len(os.listdir("/proc/self/fd")) <= before + 3
    again = pickle.loads(pickle.dumps(shards))
    del shards
    assert len(os.listdir("/proc/self/fd")) == before
    check_all(again)
    del again
    assert len(os.listdir("/proc/self/fd")) == before


# ---- interruptions ----------------------------------------------------------------------------
def test_after_a_kill_only_what_is_missing_is_made(tmp_path):
    process = start(tmp_path / "killed", 0.1)
    begun = [int(process.stdout.readline()) for _ in range(4)]  # now in the middle of the fourth
    time.sleep(0.15)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and begun == [0, 1, 2, 3]
    assert sorted(contents(tmp_path / "killed")) == [f"shard-{k:05d}.safetensors" for k in range(3)]
    again = start(tmp_path / "killed")
    made, _ = again.communicate()
    assert again.returncode == 0 and [int(line) for line in made.split()] == list(range(3, COUNT))
    filled(tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    check_all(filled(tmp_path / "killed", None))


def test_what_a_killed_process_was_writing_goes(tmp_path):
    filled(tmp_path / "other", lambda items: pieces(range(items.start + 1, items.stop + 1)))
    directory = tmp_path / "killed"
    directory.mkdir()
    left = directory / ".shard-00002.safetensors.anylatent-abcdefgh.safetensors"
    left.write_bytes(b"half of it")
    unnamed = directory / "shard-00003.safetensors"  # whole, but the index does not say so
    unnamed.write_bytes((tmp_path / "other" / unnamed.name).read_bytes())
    check_all(filled(directory))
    assert not left.exists() and len(contents(directory)) == COUNT


def test_progress_is_of_what_is_missing(tmp_path, monkeypatch):
    told = []

    @contextmanager
    def bar(description, total):
        told.append([total, 0])

        def advance(pieces):
            told[-1][1] += pieces

        yield advance

    monkeypatch.setattr("anylatent.core.support.shards.bar", bar)
    filled(tmp_path)
    cut(tmp_path / "shard-00007.safetensors")  # the last, of two items
    with pytest.warns(UserWarning, match="damaged"):
        filled(tmp_path)
    filled(tmp_path)
    assert told == [[SIZE, SIZE], [2, 2]]


def test_two_processes_make_together_what_one_makes(tmp_path):
    meet = tmp_path / "meet"
    both = [start(tmp_path / "both", 0.05, rank, 2, meet) for rank in (0, 1)]
    made = [[int(line) for line in process.communicate()[0].split()] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(made[0] + made[1]) == list(range(COUNT)) and min(map(len, made)) > 1
    filled(tmp_path / "one")
    assert contents(tmp_path / "both") == contents(tmp_path / "one")


def test_a_process_that_dies_leaves_its_piece_to_others(tmp_path):
    slow = start(tmp_path, 60)
    assert slow.stdout.readline() == "0\n"
    quick = start(tmp_path)
    made = [int(quick.stdout.readline()) for _ in range(COUNT - 1)]
    assert made == list(range(1, COUNT)) and quick.poll() is None  # it waits for the first
    os.kill(slow.pid, signal.SIGKILL)
    slow.wait()
    assert quick.communicate(timeout=30)[0] == "0\n"
    check_all(filled(tmp_path, None))


def test_a_claim_is_one_process_alone(tmp_path):
    code = (
        "import sys; from pathlib import Path; from anylatent.core.support.locks import Claims\n"
        "with Claims(Path(sys.argv[1])) as c, c.claim(3, False) as a, c.claim(4, False) as b:\n"
        "    print(a, b)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "claims")]
    with Claims(tmp_path / "claims") as claims:
        with claims.claim(3) as mine:
            assert mine and subprocess.check_output(command, text=True) == "False True\n"
        assert subprocess.check_output(command, text=True) == "True True\n"


# ---- damage -----------------------------------------------------------------------------------
def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def beheaded(path):
    data = path.read_bytes()
    path.write_bytes(bytes(len(data)))


def other_text(path):
    data = bytearray(path.read_bytes())
    data[8:12] = b"xxxx"
    path.write_bytes(bytes(data))


def longer(path):
    path.write_bytes(path.read_bytes() + b"more")


@pytest.mark.parametrize("damage", [cut, beheaded, other_text, longer, os.remove])
def test_damaged_shards_are_made_again_with_one_warning(damage, tmp_path):
    filled(tmp_path)
    before, made = contents(tmp_path), []
    for number in (2, 5):
        damage(tmp_path / f"shard-{number:05d}.safetensors")

    def make(items):
        made.append(items.start // ROWS)
        return pieces(items)

    with pytest.warns(UserWarning, match="2 of the files in .* are damaged") as caught:
        check_all(filled(tmp_path, make))
    assert len(caught) == 1 and made == [2, 5] and contents(tmp_path) == before


def test_a_file_that_is_not_as_long_as_its_header_says(tmp_path):
    filled(tmp_path)
    path = tmp_path / "shard-00001.safetensors"
    cut(path)
    index = json.loads((tmp_path / "index.json").read_text())
    index["files"][path.name] = path.stat().st_size
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.warns(UserWarning, match="bytes instead of"):
        check_all(filled(tmp_path))


def test_a_damaged_index_makes_all_again(tmp_path):
    filled(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "index.json").write_text('{"size": ')
    with pytest.warns(UserWarning, match="index.json") as caught:
        check_all(filled(tmp_path))
    assert len(caught) == 1 and contents(tmp_path) == before


def test_shards_of_other_sizes_are_not_taken_for_these(tmp_path):
    filled(tmp_path, size=10)
    check_all(filled(tmp_path))
    index = json.loads((tmp_path / "index.json").read_text())
    assert (index["size"], len(index["files"])) == (SIZE, COUNT)


def test_a_shard_that_is_cut_short_while_it_is_read(tmp_path):
    shards = filled(tmp_path)
    cut(tmp_path / "shard-00000.safetensors")
    with pytest.raises(UserError, match="cut short while it was read: run the command again"):
        shards.take("y", torch.arange(5))
        shards.take("x", torch.arange(5))
    for path in tmp_path.glob("shard-*"):
        path.unlink()
    with pytest.raises(UserError, match="is gone"):
        shards.take("x", torch.tensor([SIZE - 1]))


def test_a_directory_that_cannot_be_written_costs_a_warning_and_memory(tmp_path):
    (tmp_path / "file").write_text("no directory")
    with pytest.warns(UserWarning, match="could not save .* kept in memory") as caught:
        shards = filled(tmp_path / "file" / "shards")
    assert len(caught) == 1
    check_all(shards)
    check_all(pickle.loads(pickle.dumps(shards)))


def test_no_space_left_halfway_loses_nothing_and_takes_no_half_for_whole(tmp_path, monkeypatch):
    left, sync = [7], files.os.fsync  # a shard and an index each

    def fsync(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        with pytest.warns(UserWarning, match="No space left") as caught:
            check_all(filled(tmp_path))
    assert len(caught) == 1 and not list(tmp_path.glob(".*"))
    made = []

    def make(items):
        made.append(items.start // ROWS)
        return pieces(items)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_all(filled(tmp_path, make))
    assert made == list(range(3, COUNT))
