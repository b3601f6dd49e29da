"""Mutated bytes: the same for the same seed, of all kinds that damage comes in."""

import random

MAGIC = (
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r",
    b"\n",
    b'"',
    b"{",
    b"[",
    b"\xed\xa0\x80",
)


def mutated(content, seed):
    """The bytes with one to six changes: flipped, cut, doubled, moved, put in, cut short."""
    rng, data = random.Random(seed), bytearray(content)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data) + 1)
        length = rng.choice((1, 2, 4, 16, 64))
        kind = rng.randrange(6)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length]
        elif kind == 3:
            data[place:place] = rng.choice(MAGIC) * rng.choice((1, 1, 2, 50))
        elif kind == 4:
            data[place : place + length] = rng.randbytes(length)
        elif rng.random() < 0.3:
            del data[place:]
    return bytes(data)
