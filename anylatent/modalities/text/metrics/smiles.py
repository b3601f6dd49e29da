"""Figures of SMILES strings: which are molecules, which of these differ, and which are new."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from anylatent.core.support.progress import track
from anylatent.modalities.shared.strings import key
from anylatent.modalities.text.chemistry import canonical


def shares(strings: Sequence[str], known: Collection[int]) -> dict[str, float]:
    """Validity, uniqueness and novelty (1811.12823) of strings; `known` are keys of molecules.

    `valid`: RDKit reads the string as a molecule of one atom or more; `unique`: different molecules
    as a share of the valid strings; `novel`: the share of these that `known` lacks;
    `valid_unique_novel`: as many as a share of all strings. Two strings are one molecule if their
    canonical SMILES are equal. `unique` and `novel` are left out where nothing is valid.
    """
    found = [canonical(string) for string in strings]
    valid = [smiles for smiles in found if smiles]
    unique = set(valid)
    novel = sum(key(smiles) not in known for smiles in unique)
    row = {"valid": len(valid) / len(strings)}
    if valid:
        row |= {"unique": len(unique) / len(valid), "novel": novel / len(unique)}
    return row | {"valid_unique_novel": novel / len(strings)}


def keys(strings: Iterable[str], count: int) -> Tensor:
    """The keys of the molecules among `count` strings, sorted, each once, int64."""
    found = (canonical(string) for string in track(strings, "training molecules", count))
    return torch.tensor(sorted({key(smiles) for smiles in found if smiles}), dtype=torch.long)


def same(a: str, b: str) -> bool:
    """Whether two strings are one molecule."""
    first = canonical(a)
    return bool(first) and first == canonical(b)
