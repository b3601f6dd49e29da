"""What the machine can do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch


@lru_cache
def has_bfloat16(device: str) -> bool:
    """Whether devices of this type, "cpu" or "cuda", compute in bfloat16. Where they only emulate
    it, it is slower than float32, on a CPU more than ten times."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.13 has it
    return device == "cpu" and any(here is True and n.endswith("bf16") for n, here in can.items())
