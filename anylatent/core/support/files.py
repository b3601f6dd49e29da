"""Files that are either whole or not there, and weights that are never executed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anylatent.core.support.temporaries import temporary_of

LONGEST = 120
"""Bytes of a file's name that come from a text."""

if TYPE_CHECKING:
    from torch import Tensor


class UserError(Exception):
    """Something that the user can put right; shown without a traceback."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    If it fails (no space left, say), the temporary file goes and the old file stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_of(path) as temporary:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_mask())
            os.replace(temporary, path)
    except BaseException as error:
        full = "inline_container" in str(error)  # torch's words for what the disk did not take
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError" or full:
            old = "the old file is untouched" if os.path.exists(path) else "nothing was written"
            raise UserError(f"could not save {path}: {error}; {old}") from error
        raise


def _mask() -> int:
    """What the user takes from the rights of new files."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def file_name(text: str) -> str:
    """The text as a name for one file, or the beginning of one, in the folder where it is put: what
    means anything else to a file system becomes an underscore, and what is long is cut."""
    name = "".join("_" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in text)
    name = name.encode()[:LONGEST].decode(errors="ignore").strip()
    return f"_{name.lstrip('.')}" if name.startswith(".") or not name else name


def place_of(text: str | Path) -> Path:
    """The path that a user typed; a ~ at its beginning is the folder of a user, where there is
    nothing of that very name."""
    path = Path(text)
    if not str(text).startswith("~") or path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user
        return path


def save_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Tensors as safetensors."""
    from safetensors.torch import save_file

    owned = dict(_apart(tensors))
    with replacing(path) as temporary:
        save_file(owned, temporary, dict(metadata))


def _apart(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Each with memory of its own, which safetensors asks for; a copy only of what has not."""
    seen = set[int]()
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        storage = flat.untyped_storage()
        alone = storage.nbytes() == flat.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        yield name, flat if alone else flat.clone()


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; refuses anything that is not a whole safetensors file."""
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises UserError for weights of a file that are not finite."""
    for name, x in tensors.items():
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise UserError(
                f"{path}: {name} has numbers that are not finite: the file is damaged, or what "
                "made it failed. Make it again, or copy it anew"
            )


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file alone."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The tensors and plain values of a checkpoint; nothing in it is ever executed."""
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a broken file
        raise UserError(
            f"{path} is no checkpoint of plain tensors ({type(error).__name__}); it is not "
            "loaded. Remove it to start the stage anew"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is no checkpoint: remove it to start the stage anew")
    return state


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}). It may be cut short, or a pickle, "
            "which is never loaded because it could run code. Train again, or copy it anew"
        ) from error
