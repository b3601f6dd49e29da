"""A file's digest is that of its content, however little of it is read again."""

import os
import shutil
import time

import pytest

from anylatent.core.support import file_digests as module
from anylatent.core.support.file_digests import file_digests


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SETTLED", -1.0)  # what was just written counts as old
    folder = tmp_path / "files"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name * 1000)
    return folder


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read, in any order."""
    found, read = [], module._digest
    monkeypatch.setattr(module, "_digest", lambda path: (found.append(path.name), read(path))[1])
    return found


def digests(folder):
    return file_digests(folder, sorted(folder.iterdir()))


def test_only_what_may_have_changed_is_read_again(folder, reads):
    first = digests(folder)
    assert sorted(reads) == ["a", "b", "c"] and len(set(first)) == 3
    reads.clear()
    assert digests(folder) == first and not reads
    (folder / "b").write_text("x")
    (folder / "d").write_text("y")
    second = digests(folder)
    assert sorted(reads) == ["b", "d"]
    assert [second[0], second[2]] == [first[0], first[2]] and second[1] != first[1]


def written_in_place(file):
    file.write_text("z" * 1000)


def copied_over(file):
    other = file.with_name("new")
    other.write_text("z" * 1000)
    shutil.copystat(file, other)
    os.replace(other, file)


@pytest.mark.parametrize("change", [written_in_place, copied_over])
def test_equal_size_and_times_do_not_make_it_the_same(folder, change):
    before, status = digests(folder), (folder / "b").stat()
    time.sleep(0.02)  # a tick of the file system's clock
    change(folder / "b")
    os.utime(folder / "b", ns=(status.st_atime_ns, status.st_mtime_ns))
    after = digests(folder)
    assert (folder / "b").stat().st_mtime_ns == status.st_mtime_ns
    assert after[0] == before[0] and after[1] != before[1]


def test_what_was_written_just_now_is_read_again(folder, reads, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 2.0)
    first = digests(folder)
    assert digests(folder) == first and len(reads) == 6


def test_equal_contents_have_equal_digests_wherever_they_lie(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert digests(tmp_path / "copy") == digests(folder)
    (folder / "a").rename(folder / "e")
    assert sorted(digests(folder)) == sorted(digests(tmp_path / "copy"))


def test_what_can_not_be_read_is_no_digest_and_not_remembered(folder, monkeypatch):
    fine, allowed = digests(folder), []
    monkeypatch.setattr(module.os, "access", lambda path, mode: path.name != "b" or bool(allowed))
    real = open

    def refused(path, *how):
        if path.name == "b" and not allowed:
            raise PermissionError(13, "Permission denied")
        return real(path, *how)

    monkeypatch.setattr(module, "open", refused, raising=False)
    assert digests(folder) == [fine[0], "!PermissionError", fine[2]]
    allowed.append(1)
    assert digests(folder) == fine


def test_a_change_of_permission_is_seen(folder, reads):
    digests(folder)
    reads.clear()
    time.sleep(0.02)
    (folder / "c").chmod(0o600)
    digests(folder)
    assert reads == ["c"]


def test_a_damaged_store_is_made_again(folder, reads):
    first = digests(folder)
    (store,) = (folder.parent / "cache").glob("digests-*.txt")
    for damage in ("", "{", "made by\n[1]", 'made by\n{"a": 3}', "\n\x00"):
        store.write_text(damage)
        assert digests(folder) == first
    assert len(reads) == 18


def test_a_file_by_itself(folder, reads):
    (alone,) = file_digests(folder / "a", [folder / "a"])
    assert alone == digests(folder)[0]
    reads.clear()
    assert file_digests(folder / "a", [folder / "a"]) == [alone] and not reads
