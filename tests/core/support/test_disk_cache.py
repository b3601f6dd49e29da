"""Tensors that are kept on disk: made once, by one of those who ask at a time."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from anylatent.core.support.disk_cache import cached

ASK = """
import sys, time, torch
from pathlib import Path
from anylatent.core.support.disk_cache import cached
def build():
    with open(sys.argv[1], "a") as log:
        log.write("made\\n")
    time.sleep(1)
    return {"x": torch.arange(5)}
Path(sys.argv[2]).touch()
while len(list(Path(sys.argv[2]).parent.glob("here*"))) < 2:
    time.sleep(0.01)
assert cached("thing", {"a": 1}, build)["x"].tolist() == [0, 1, 2, 3, 4]
"""


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_two_processes_that_ask_at_a_time_make_it_once(tmp_path):
    log, here = tmp_path / "log", [tmp_path / "here0", tmp_path / "here1"]
    commands = [[sys.executable, "-c", ASK, str(log), str(place)] for place in here]
    processes = [subprocess.Popen(command, env=dict(os.environ)) for command in commands]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert log.read_text().splitlines() == ["made"]


def test_a_damaged_file_is_made_again_with_one_warning(directory):
    made = []

    def build():
        made.append(1)
        return {"x": torch.tensor([2.0])}

    assert cached("thing", 1, build)["x"] == 2 and cached("thing", 1, build)["x"] == 2
    (file,) = directory.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:20])
    with pytest.warns(UserWarning, match="damaged and is made again") as told:
        assert cached("thing", 1, build)["x"] == 2
    assert len(told) == 1 and len(made) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cached("thing", 1, build)["x"] == 2 and len(made) == 2


def test_what_is_made_within_another_does_not_wait_for_it(directory):
    inner = lambda: cached("inner", 1, lambda: {"x": torch.tensor(3)})  # noqa: E731
    assert cached("outer", 1, inner)["x"] == 3


def test_no_space_costs_a_warning_and_leaves_no_half_file(directory, monkeypatch):
    def full(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anylatent.core.support.files.os.replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert cached("test", {}, lambda: {"x": torch.ones(1)})["x"].tolist() == [1]
    assert [path.name for path in directory.iterdir()] == ["locks"]
