"""Which draws are whose: the second number of a seed, after the run's own."""

from __future__ import annotations

import hashlib
from enum import IntEnum


class Stream(IntEnum):
    """Keeps the noises of one seed apart, by what they are drawn for."""

    AUTOENCODER = 1
    DIFFUSION = 2
    JOINT = 3
    CLASSIFIER = 4
    RECONSTRUCTIONS = 90
    SAMPLES = 91
    HELD_OUT = 92
    RATE = 93
    POSTERIORS = 94
    LIKELIHOOD = 95
    ACCURACY = 96
    FRESH = 97
    COPIES = 98
    WINDOWS = 99
    GIVEN = 100
    COMPLETIONS = 101

    @staticmethod
    def of(name: str) -> int:
        """A number for draws that are not named above, such as those of a stage of a plugin."""
        return 1000 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
