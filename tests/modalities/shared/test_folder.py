"""Folders of files: which are read, and when they are read again."""

import pytest
import torch

from anylatent.core.support.files import UserError
from anylatent.modalities.shared.folder import Files
from anylatent.modalities.shared.strings import (
    lines_tensor,
    listed,
    tensor_lines,
    tensor_text,
    text_tensor,
)

WORDS = {"purpose": "the data set 'it'", "wanted": "a folder of notes", "what": "notes"}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    for name in ("b.note", "a/c.NOTE", ".hidden.note", "a/.d/e.note", "f.other"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(name)
    return tmp_path / "root"


def files(path, single=False):
    return Files(str(path), (".note",), single=single, **WORDS)


def test_visible_files_by_the_order_of_their_paths(root):
    found = files(root)
    assert [name.as_posix() for name in found.names] == ["a/c.NOTE", "b.note"]
    assert found.paths == [root / name for name in found.names]
    assert [name for name, _ in found.stamps] == ["a/c.NOTE", "b.note"]
    assert len({content for _, content in found.stamps}) == 2


def test_what_was_read_is_kept_until_a_file_changes(root):
    read = []

    def build():
        read.append(0)
        return {"n": torch.tensor(len(read))}

    for _ in range(2):
        assert int(files(root).read("it", {"made by": "1"}, build)["n"]) == 1
    assert int(files(root).read("it", {"made by": "2"}, build)["n"]) == 2
    (root / "b.note").write_text("other")
    assert int(files(root).read("it", {"made by": "1"}, build)["n"]) == 3


def test_a_single_file_where_that_is_allowed(root):
    assert [str(name) for name in files(root / "b.note", single=True).names] == ["b.note"]
    with pytest.raises(UserError, match="b.note' is a file: give the folder"):
        files(root / "b.note")


def test_what_cannot_be_read_says_what_to_do(root):
    with pytest.raises(UserError, match="'it' needs data.path=..., a folder of notes"):
        files("")
    with pytest.raises(UserError, match="there is no folder .*nowhere' to read notes from"):
        files(root / "nowhere")
    with pytest.raises(UserError, match="there is no file or folder .*nowhere'"):
        files(root / "nowhere", single=True)
    with pytest.raises(UserError, match="no notes in .*root' or below it: looked for .x .y"):
        Files(str(root), (".x", ".y"), **WORDS)


def test_strings_come_back_from_tensors():
    lines = ["", "é ⏎", "a b"]
    assert tensor_lines(lines_tensor(lines)) == lines and tensor_lines(lines_tensor([])) == []
    assert tensor_text(text_tensor("ü\n")) == "ü\n" and text_tensor("").dtype == torch.uint8


def test_a_list_is_cut_and_counted():
    assert listed(["a", "b"]) == "a; b" and listed([]) == ""
    assert listed(list("abcd"), most=2, between=", ") == "a, b, and 2 more"
