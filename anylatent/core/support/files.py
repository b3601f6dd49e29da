"""Files that are either whole or not there, and weights that are never executed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor


class UserError(Exception):
    """Something that the user can put right; shown without a traceback."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    If it fails (no space left, say), the temporary file goes and the old file stays.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            old = "the old file is untouched" if os.path.exists(path) else "nothing was written"
            raise UserError(f"could not save {path}: {error}; {old}") from error
        raise


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


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file alone."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


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


def visible_files(root: Path, suffixes: Collection[str]) -> list[Path]:
    """The files below a folder, at any depth, with one of the (lower-case) suffixes, sorted.

    What begins with a dot is left out, and what lies in a folder that does.
    """
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
