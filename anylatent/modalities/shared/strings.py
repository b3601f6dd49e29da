"""Strings as tensors, for caches, and as keys by which one is told from another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def text_tensor(text: str) -> Tensor:
    """A text as bytes of UTF-8."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def tensor_text(tensor: Tensor) -> str:
    """The text of bytes."""
    return bytes(tensor.numpy()).decode()


def lines_tensor(lines: Sequence[str]) -> Tensor:
    """Strings without line breaks, a line each, as bytes."""
    return text_tensor("".join(f"{line}\n" for line in lines))


def tensor_lines(tensor: Tensor) -> list[str]:
    """The strings of `lines_tensor`."""
    return tensor_text(tensor).split("\n")[:-1]


def key(text: str) -> int:
    """64 bits that tell one text from another: the head of its SHA-256, the lowest byte first."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def listed(things: Sequence[str], most: int = 10, between: str = "; ") -> str:
    """The first things, and how many more there are."""
    more = f"{between}and {len(things) - most} more" if len(things) > most else ""
    return between.join(things[:most]) + more
