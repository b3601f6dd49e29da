"""Devices that are asked for are there, or the user is told which are."""

import pytest
import torch

from anylatent.core.support.devices import available, device_of
from anylatent.core.support.files import UserError


@pytest.mark.parametrize("asked", ["cuda:99", "banana", "meta", "cpu:3", "", "gpu"])
def test_a_device_that_is_not_there_is_one_sentence(asked):
    with pytest.raises(UserError, match=f"device={asked}: there is cpu.* here.*Leave device out"):
        device_of(asked)


def test_a_torch_that_has_no_cuda_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match="this torch is built without CUDA"):
        device_of("cuda")
    assert device_of() == "cpu"


def test_what_is_there_is_taken():
    for name in available():
        assert device_of(name) == name and torch.empty(1, device=name).device.type in name
    assert device_of() in available()


def test_gpus_have_numbers(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of(name) for name in (None, "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(UserError, match="there is cpu, cuda, cuda:0, cuda:1"):
        device_of("cuda:2")


@pytest.mark.parametrize("command", ["sample", "evaluate", "invert", "benchmark"])
def test_commands_refuse_it_before_anything_is_read(command, digits, fails, tmp_path):
    error = fails(command, f"run={digits}", "n=4", "device=cuda:99", f"out={tmp_path / 'out'}")
    assert "device=cuda:99: there is cpu" in error and not (tmp_path / "out").exists()
