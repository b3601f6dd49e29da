"""Tensors that were computed once, under a name made of everything that went into them.

They lie in `$ANYLATENT_CACHE`, else in `anylatent` in the user's cache directory. A damaged file
is made again, and a directory that cannot be written costs a warning and nothing else. What is used
is touched, so that what is used least goes first where there is a limit (see `cache_entries`).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from anylatent.core.support.cache_entries import alone, shrink, summary, touch
from anylatent.core.support.files import UserError, load_weights, save_text, save_weights

if TYPE_CHECKING:
    from torch import Tensor


def cache_directory() -> Path:
    """`$ANYLATENT_CACHE`, `$XDG_CACHE_HOME/anylatent`, or `~/.cache/anylatent`."""
    if own := os.environ.get("ANYLATENT_CACHE"):
        return Path(own)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        base = tempfile.gettempdir()
    return Path(base) / "anylatent"


def digest(description: object, tensors: Mapping[str, Tensor] | None = None) -> str:
    """A key for whatever plain values and some tensors determine."""
    state = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    if tensors:
        import torch

        for name, tensor in sorted(tensors.items()):
            state.update(name.encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            state.update(flat.view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:24]


class Store:
    """One file of the cache, which is this process's alone within `with`: the others wait for it.

    `about` says what made it. Nothing that goes wrong with it is more than a warning.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path, self._stack = path, ExitStack()
        self.about = " ".join(about.encode(errors="backslashreplace").decode().split())

    def __enter__(self) -> Store:
        self._stack.enter_context(alone(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tensors(self) -> dict[str, Tensor] | None:
        """None where there is nothing, or nothing whole."""
        try:
            found, told = load_weights(self.path)
            _check(found, told)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (UserError, OSError) as error:
            text = f"{self.path} is damaged and is made again ({error})"
            warnings.warn(text, stacklevel=4)
            return None
        touch(self.path)
        return found

    def save(self, tensors: Mapping[str, Tensor]) -> None:
        told = {"about": self.about, **_layout(tensors)}
        self._keep(lambda: save_weights(self.path, tensors, told))

    def read(self) -> str:
        """The text in it, below the line that says what made it, "" where there is none."""
        try:
            found = self.path.read_text(encoding="utf-8").partition("\n")[2]
        except (OSError, UnicodeDecodeError):
            return ""
        touch(self.path)
        return found

    def write(self, text: str) -> None:
        self._keep(lambda: save_text(self.path, f"{self.about}\n{text}"))

    def _keep(self, write: Callable[[], None]) -> None:
        try:
            write()
        except UserError as error:
            warnings.warn(f"{error}; it is made again next time", stacklevel=5)
            return
        shrink(self.path.parent, self.path)


def _layout(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What tensors are, and which of them have numbers that are not finite."""
    shapes = {name: [str(x.dtype), list(x.shape)] for name, x in sorted(tensors.items())}
    floats = {name: x for name, x in sorted(tensors.items()) if x.is_floating_point()}
    wrong = [name for name, x in floats.items() if not bool(x.isfinite().all())]
    return {"layout": json.dumps(shapes), "not_finite": json.dumps(wrong)}


def _check(tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> None:
    """Raises UserError for other tensors than were written."""
    if {key: told.get(key) for key in ("layout", "not_finite")} != _layout(tensors):
        raise UserError("its tensors are not those that were written")


def cached(
    name: str, made_by: object, build: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors that `build` makes, read from disk if they were made by the same plain values.

    Of several processes that ask at a time, one makes them, and the others wait for it.
    """
    path = cache_directory() / f"{name}-{digest(made_by)}.safetensors"
    with Store(path, summary(made_by)) as store:
        found = store.tensors()
        if found is None:
            found = dict(build())
            store.save(found)
        return found
