"""SplitMix64's bijection (Steele, Lea and Flood, 2014), and the odd steps between counters."""

from __future__ import annotations

from torch import Tensor


def signed(value: int) -> int:
    """The 64-bit integer of torch with the same bits."""
    return (value + 2**63) % 2**64 - 2**63


STEP = signed(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: between the places of a draw
SAMPLES = signed(0xD1342543DE82EF95)  # odd, so that the samples of a run never collide
DRAWS = signed(0xA0761D6478BD642F)  # odd, so that a sample's draws never do
NODES = signed(0xE7037ED1A0B428DB)  # odd: between the nodes of a path
APART = signed(0x8EBC6AF09C88C6E3)  # odd: between a source and those that are apart from it


def mix(z: Tensor) -> Tensor:
    """SplitMix64's bijection of 64-bit integers, elementwise; z: int64, overwritten."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z ^= (z >> shift) & (2 ** (64 - shift) - 1)  # torch shifts the sign in: mask it
        z *= signed(factor)
    return z
