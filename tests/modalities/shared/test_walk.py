"""What a folder's entries become: links, circles, pipes, other kinds, and what they are called."""

import os
import warnings
from pathlib import Path

import pytest

from anylatent.core.support.files import UserError
from anylatent.modalities.shared.folder import DOCUMENTS, Files, Kinds
from anylatent.modalities.shared.layout import layout, note_split
from anylatent.modalities.shared.report import Report, reason_of, shown
from anylatent.modalities.shared.walk import walk

WORDS = {"purpose": "the data set 'it'", "wanted": "a folder of notes", "what": "notes"}


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def walked(root):
    report = Report(root, "notes")
    return [path.relative_to(root).as_posix() for path in walk(root, report)], report.left_out


def files(root, *suffixes, **options):
    return Files(str(root), Kinds(suffixes or (".note",), DOCUMENTS, **options), **WORDS)


# ---- links ------------------------------------------------------------------------------------
def test_a_link_to_a_folder_is_followed(tmp_path):
    make(tmp_path, "in/cats/1.note", "away/dogs/2.note", "away/dogs/deep/3.note")
    (tmp_path / "in" / "dogs").symlink_to(tmp_path / "away" / "dogs")
    names, left = walked(tmp_path / "in")
    assert names == ["cats/1.note", "dogs/2.note", "dogs/deep/3.note"] and not left


def test_a_link_to_a_file_is_that_file(tmp_path):
    make(tmp_path, "in/1.note", "blobs/abc")
    (tmp_path / "in" / "2.note").symlink_to("../blobs/abc")
    assert walked(tmp_path / "in") == (["1.note", "2.note"], {})


@pytest.mark.parametrize("target", [".", "..", "a", "/"])
def test_circles_are_cut_and_named(tmp_path, target):
    make(tmp_path, "in/a/1.note", "in/b/2.note", "beside/3.note")
    (tmp_path / "in" / "b" / "again").symlink_to(tmp_path / "in" / target)
    names, left = walked(tmp_path / "in")
    assert names == ["a/1.note", "b/2.note"]
    assert left == {"links to folders that are read anyway": ["b/again"]}


def test_two_folders_that_link_to_one_another(tmp_path):
    make(tmp_path, "in/0.note", "x/1.note", "y/2.note")
    (tmp_path / "x" / "y").symlink_to(tmp_path / "y")
    (tmp_path / "y" / "x").symlink_to(tmp_path / "x")
    (tmp_path / "in" / "x").symlink_to(tmp_path / "x")
    names, left = walked(tmp_path / "in")
    assert names == ["0.note", "x/1.note", "x/y/2.note"]
    assert left == {"links to folders that are read anyway": ["x/y/x"]}


def test_links_that_lead_nowhere_and_pipes_are_named(tmp_path):
    make(tmp_path, "1.note")
    (tmp_path / "2.note").symlink_to("gone.note")
    (tmp_path / "3.note").symlink_to("3.note")
    os.mkfifo(tmp_path / "4.note")
    names, left = walked(tmp_path)
    assert names == ["1.note"] and left["neither files nor folders"] == ["4.note"]
    nowhere = left["links that lead nowhere"]
    assert sorted(nowhere) == [
        "2.note: no such file or directory",
        "3.note: too many levels of symbolic links",
    ]


def test_what_may_not_be_opened_is_named_with_the_reason(tmp_path, monkeypatch):
    make(tmp_path, "1.note", "2.note", "shut/3.note")
    real, access = os.scandir, os.access

    def scandir(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "access", lambda p, how: Path(p).name != "2.note" and access(p, how))
    report = files(tmp_path).report
    assert report.left_out == {
        "folders that can't be opened": ["shut: permission denied"],
        "cannot be read": ["2.note: permission denied"],
    }
    assert (report.seen, report.used) == (3, 1)


def test_a_tree_deeper_than_the_stack(tmp_path):
    deep = [tmp_path]
    for _ in range(1200):
        deep.append(deep[-1] / "d")
        deep[-1].mkdir()
    make(deep[-1], "1.note")
    try:
        names, left = walked(tmp_path)
    finally:
        (deep[-1] / "1.note").unlink()
        for folder in deep[:0:-1]:  # which `rmtree` could not
            folder.rmdir()
    assert names == ["d/" * 1200 + "1.note"] and not left


# ---- kinds ------------------------------------------------------------------------------------
def test_other_kinds_are_named_and_documents_are_not(tmp_path):
    make(tmp_path, "1.note", "2.NOTE", "3.heic", "README", "b/LICENSE.x", "c.md", "Thumbs.db")
    make(tmp_path, ".hidden.note", ".git/4.note", "d.csv")
    found = files(tmp_path)
    assert [name.as_posix() for name in found.names] == ["1.note", "2.NOTE"]
    assert found.report.left_out == {"of another kind": ["3.heic"]}
    beside = {"c.md", "d.csv", "README", "Thumbs.db", "LICENSE.x"}
    assert {path.name for path in found.others} == beside
    assert sorted(found.report.beside["hidden"]) == [".git", ".hidden.note"]
    with pytest.warns(
        UserWarning, match=r"of 3 notes in .*, 1 of another kind: 3.heic; 2 are used"
    ):
        found.report.tell()


def test_what_opens_it_is_asked_of_unknown_kinds_alone(tmp_path):
    make(tmp_path, "1.note", "2.odd", "3.md", "4.other")
    asked = []

    def opens(path):
        asked.append(path.name)
        return path.suffix == ".odd"

    found = files(tmp_path, opens=opens)
    assert [name.as_posix() for name in found.names] == ["1.note", "2.odd"]
    assert sorted(asked) == ["2.odd", "4.other"]


def test_a_good_folder_tells_nothing(tmp_path):
    make(tmp_path, "1.note", "README.md", ".DS_Store")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files(tmp_path).report.tell()


def test_a_folder_of_other_kinds_alone_says_what_is_there(tmp_path):
    make(tmp_path, "1.heic", "2.heic")
    with pytest.raises(UserError, match=r"no notes .* looked for .note. .*2 of another kind: 1.h"):
        files(tmp_path)


# ---- words ------------------------------------------------------------------------------------
def test_names_in_any_bytes_can_be_shown(tmp_path):
    name = os.fsdecode(b"caf\xe9.note")
    make(tmp_path, "ü.note")
    (tmp_path / name).write_text("it")
    found = files(tmp_path)
    assert [shown(path) for path in found.names] == ["caf\\xe9.note", "ü.note"]
    shown(found.names[0]).encode()


def test_reasons_are_short_and_without_paths():
    assert reason_of(FileNotFoundError(2, "No such file or directory", "/a/b")) == (
        "no such file or directory"
    )
    assert (
        reason_of(ValueError("two\n words")) == "two words" and reason_of(KeyError()) == "KeyError"
    )


def test_a_report_counts_and_shows_the_first():
    report = Report(Path("here"), "notes")
    report.used = 3
    for number in range(7):
        report.leave("of another kind", f"{number}.odd")
    report.note("empty ones", "a.note")
    copy = report.extended()
    copy.leave("cannot be read", "x.note", "cut short")
    assert report.summary == (
        "of 10 notes in here, 7 of another kind: 0.odd, 1.odd, 2.odd, 3.odd, 4.odd, and 2 more; "
        "3 are used. Besides, 1 empty ones: a.note"
    )
    assert "1 cannot be read: x.note: cut short" in copy.summary and copy.seen == 11


# ---- folders that are parts -------------------------------------------------------------------
def laid(*names):
    found = layout([Path(name) for name in names])
    return found.parts, [path.as_posix() for path in found.inner]


def test_train_and_test_on_top_are_parts():
    parts, inner = laid("Train/cat/1", "train/2", "TEST/cat/1", "val/3", "odd/4", "5")
    assert parts == ["train", "train", "held_out", "held_out", None, None]
    assert inner[:4] == ["cat/1", "2", "cat/1", "3"]
    assert layout([Path("train/1"), Path("valid/2")]).given
    assert laid("all/train/cat/1", "all/test/cat/2") == (["train", "held_out"], ["cat/1", "cat/2"])


def test_one_of_them_alone_holds_everything():
    parts, inner = laid("train/cat/1", "train/dog/2")
    assert (parts, inner) == (["", ""], ["cat/1", "dog/2"])
    assert not layout([Path("train/cat/1"), Path("train/dog/2")]).given


@pytest.mark.parametrize(
    "names",
    [("train/1", "car/2"), ("test/1", "bus/2"), ("train/1", "2"), ("a/train/1", "b/test/2")],
)
def test_classes_that_are_called_so_are_classes(names):
    assert laid(*names) == ([""] * len(names), list(names))


def test_readers_without_parts_of_their_own_say_that_they_mix_them(tmp_path):
    report = Report(tmp_path, "notes")
    note_split([Path("all/train/1"), Path("all/Test/deep/2")], report)
    (names,) = report.noted.values()
    assert names == ["train", "Test"]
    quiet = Report(tmp_path, "notes")
    note_split([Path("train/1"), Path("car/2")], quiet)
    assert not quiet.noted
