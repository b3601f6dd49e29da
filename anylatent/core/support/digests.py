"""Numbers that stand for contents."""

from __future__ import annotations

from hashlib import blake2b


def number_of(*contents: bytes) -> int:
    """A signed number of 64 bits for what comes in these pieces."""
    state = blake2b(digest_size=8)
    for content in contents:
        state.update(content)
    return int.from_bytes(state.digest(), "little", signed=True)
