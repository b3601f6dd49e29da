"""What the cache has, how it is emptied and kept within a limit, and what it never touches."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from anylatent.core.cli.main import main
from anylatent.core.support.cache_entries import LIMIT, entries, remove
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.stored import cached_rows
from anylatent.core.support.temporaries import temporary_of

MAKING = """
import sys, time, torch
from pathlib import Path
from anylatent.core.support.disk_cache import cached
def build():
    print("making", flush=True)
    sys.stdin.readline()
    return {"x": torch.ones(1)}
assert cached("thing", 1, build)["x"] == 1
print("made", flush=True)
"""


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(LIMIT, raising=False)
    return tmp_path / "cache"


def thing(name, size=1000, calls=None):
    def build():
        if calls is not None:
            calls.append(name)
        return {"x": torch.full((size,), 7, dtype=torch.uint8)}

    return cached("thing", {"name": name, "files": list(range(20))}, build)


def rows(name, held=None):
    make = lambda items: [{"x": torch.tensor([float(i) for i in items])[:, None]}]  # noqa: E731
    return cached_rows("rows", name, 10, 5, make, "making")


def older(directory, seconds):
    """Every entry was used that much earlier."""
    for entry in entries(directory):
        path = entry.path / "about.txt" if entry.path.is_dir() else entry.path
        os.utime(path, (entry.used - seconds, entry.used - seconds))


def test_entries_have_sizes_and_what_made_them(directory):
    assert entries(directory) == []
    thing("one")
    older(directory, 100)
    held = rows("two")
    first, second = entries(directory)
    assert first.about == '{"name": "one", "files": "20 entries"}'
    assert second.about == '"two"' and second.path.is_dir() and len(held) == 10
    assert first.size == first.path.stat().st_size > 1000 and second.size > 80
    thing("one")
    assert [entry.path for entry in entries(directory)] == [second.path, first.path]


def test_the_least_used_go_where_there_is_a_limit(directory, monkeypatch):
    calls = []
    for name in ("a", "b", "c"):
        thing(name, calls=calls)
        older(directory, 100)
    thing("a", calls=calls)  # is used again, so that b is the least used
    monkeypatch.setenv(LIMIT, str(3.5 * entries(directory)[0].size))
    thing("d", calls=calls)
    for name in ("a", "c", "d"):
        thing(name, calls=calls)
    assert calls == ["a", "b", "c", "d"]
    thing("b", calls=calls)
    assert calls[-1] == "b" and len(entries(directory)) == 3


def test_what_is_larger_than_the_limit_is_kept_until_the_next(directory, monkeypatch):
    monkeypatch.setenv(LIMIT, "10")
    thing("a")
    assert len(entries(directory)) == 1
    thing("b")
    assert len(entries(directory)) == 1
    for wrong in ("much", "nan", "-1"):
        monkeypatch.setenv(LIMIT, wrong)
        with pytest.warns(UserWarning, match=f"{wrong} is no number of bytes"):
            thing(f"c{wrong}")
        assert len(entries(directory)) > 1, "nothing goes by a limit that is none"


def test_rows_in_use_stay(directory, monkeypatch):
    shards = rows("used")
    (entry,) = entries(directory)
    assert not remove(entry)
    monkeypatch.setenv(LIMIT, "1")
    thing("a")
    assert shards.take("x", torch.arange(10))[:, 0].tolist() == list(range(10))
    del shards
    assert remove(entry) and not entry.path.exists()


def test_clearing_leaves_what_another_process_makes(directory, capsys):
    command = [sys.executable, "-c", MAKING]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=dict(os.environ), **pipes) as process:
        assert process.stdout.readline() == "making\n"
        (lock,) = (directory / "locks").iterdir()
        half = directory / f"{lock.name}.safetensors"
        half.write_bytes(b"damaged")
        with temporary_of(half) as temporary:
            temporary.write_bytes(b"half")
            thing("other")
            main(["cache", "clear"])
            out = capsys.readouterr().out
            assert "removed 1 entries" in out and f"removed: {half}" in out
            assert half.exists() and temporary.exists()
        process.communicate("\n")
    assert process.returncode == 0
    main(["cache", "clear"])
    assert entries(directory) == []


def test_temporaries_of_dead_processes_go_with_the_next_that_is_written(directory):
    thing("one")
    (entry,) = entries(directory)
    stray = directory / f".thing-{'0' * 24}.safetensors.anylatent-abcdefg1.safetensors"
    own = directory / f".{entry.path.name}.anylatent-abcdefg2.safetensors"
    for path in (stray, own):
        path.write_bytes(b"half")
    thing("two")
    assert not stray.exists() and not own.exists()


def test_nothing_else_is_listed_or_removed(directory, capsys):
    thing("one")
    names = [
        "notes.txt",
        "thing.safetensors",
        ".hidden",
        "thing-1",
        ".notes.20240101",
        ".a.b.abcdefgh.b",
    ]
    others = [directory / name for name in names]
    for path in others:
        path.write_text("mine")
    (directory / "photos").mkdir()
    main(["cache"])
    out = capsys.readouterr().out
    assert "1 entries" in out and '"name": "one"' in out and "kB" in out
    main(["cache", "clear"])
    assert all(path.exists() for path in others) and (directory / "photos").exists()
    assert entries(directory) == []


@pytest.mark.parametrize("name", ["file/cache", "file"])
def test_a_cache_that_can_not_be_made_is_a_warning(tmp_path, monkeypatch, name):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / name))
    with pytest.warns(UserWarning, match="could not save"):
        assert thing("one")["x"].sum() == 7000
    with pytest.warns(UserWarning, match="kept in memory"):
        assert rows("two").take("x", torch.arange(10))[:, 0].tolist() == list(range(10))
    main(["cache"])
    main(["cache", "clear"])


def test_a_file_of_the_cache_that_may_not_be_read_is_made_again(directory, monkeypatch):
    thing("one")

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("anylatent.core.support.disk_cache.load_weights", refused)
    with pytest.warns(UserWarning, match="made again"):
        assert thing("one")["x"].sum() == 7000
    monkeypatch.undo()


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    from anylatent.core.support.disk_cache import cache_directory

    for name in ("ANYLATENT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("anylatent.core.support.disk_cache.Path.home", none)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache_directory().name == "anylatent"
