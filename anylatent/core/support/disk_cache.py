"""Tensors that were computed once, under a name made of everything that went into them.

They lie in `$ANYLATENT_CACHE`, else in `anylatent` in the user's cache directory. A damaged file
is made again, and a directory that cannot be written costs a warning and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from anylatent.core.support.files import UserError, load_weights, save_weights
from anylatent.core.support.locks import Claims


def cache_directory() -> Path:
    """`$ANYLATENT_CACHE`, `$XDG_CACHE_HOME/anylatent`, or `~/.cache/anylatent`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("ANYLATENT_CACHE") or Path(base) / "anylatent")


def digest(description: object, tensors: Mapping[str, Tensor] | None = None) -> str:
    """A key for whatever plain values and some tensors determine."""
    state = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted((tensors or {}).items()):
        state.update(name.encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        state.update(flat.view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:24]


def cached(
    name: str, made_by: object, build: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors that `build` makes, read from disk if they were made by the same plain values.

    Of several processes that ask at a time, one makes them, and the others wait for it.
    """
    path = cache_directory() / f"{name}-{digest(made_by)}.safetensors"
    with Claims(path.parent / "locks" / path.stem) as claims, claims.claim(0):
        found = _read(path)
        return _made(path, build) if found is None else found


def _read(path: Path) -> dict[str, Tensor] | None:
    """None where there is nothing, or nothing whole."""
    if not path.exists():
        return None
    try:
        return load_weights(path)[0]
    except UserError as error:
        warnings.warn(f"{path} is damaged and is made again ({error})", stacklevel=3)
        return None


def _made(path: Path, build: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    tensors = dict(build())
    try:
        save_weights(path, tensors, {})
    except UserError as error:
        warnings.warn(f"{error}; it is made again next time", stacklevel=3)
    return tensors
