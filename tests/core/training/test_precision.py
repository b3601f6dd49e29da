"""`trainer.precision`: bfloat16 is taken by itself only where the hardware computes in it."""

import pytest
import torch

from anylatent.core.support.hardware import has_bfloat16
from anylatent.core.training.settings import TrainerConfig

CPUS = {
    "a Xeon with AMX": ({"avx2": True, "avx512_bf16": True, "amx_bf16": True}, True),
    "an EPYC of Zen 2": ({"avx2": True, "avx512_bf16": False, "l1d_cache_size": 32768}, False),
    "an ARM with SVE": ({"neon": True, "bf16": True, "sve_bf16": True}, True),
    "one that tells sizes alone": ({"num_bf16": 2}, False),
}


@pytest.fixture(autouse=True)
def asked_anew():
    has_bfloat16.cache_clear()
    yield
    has_bfloat16.cache_clear()


@pytest.mark.parametrize("name", CPUS)
def test_a_cpu_says_what_it_has(name, monkeypatch):
    told, expected = CPUS[name]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert has_bfloat16("cpu") is expected


def test_an_older_torch_says_nothing(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bfloat16("cpu")


@pytest.mark.parametrize("emulated", [False, True])
def test_a_gpu_must_not_emulate_it(emulated, monkeypatch):
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: including_emulation or not emulated,
    )
    assert has_bfloat16("cuda") is not emulated


@pytest.mark.parametrize("precision", [16, "16", "16-mixed", "16-true"])
def test_float16_is_refused_before_anything_is_made(precision):
    with pytest.raises(ValueError, match="use 32-true, bf16-mixed or auto"):
        TrainerConfig(precision=precision)
