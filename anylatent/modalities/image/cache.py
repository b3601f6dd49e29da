"""Files that the image modality finds in installed packages, and tensors that it keeps on disk.

Cached tensors lie in `$XDG_CACHE_HOME/anylatent` (else `~/.cache/anylatent`), under a name made of
everything that went into them. A file is written under a temporary name and renamed, so that a
reader never meets half of one; a damaged one is made again, and a directory that cannot be
written costs a warning and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor


class MissingPackage(ImportError):
    """A package of an extra is not installed; the message names both."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed or incomplete: "
            "pip install 'anylatent[image]'"
        )


def package_file(package: str, *parts: str, purpose: str) -> Path:
    """The path of a file inside an installed package, which is not imported.

    `package` is its name on the package index; its module has the same name with underscores.
    Raises `MissingPackage` where the package or the file is missing.
    """
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, *parts)
        if path.exists():
            return path
    raise MissingPackage(package, purpose)


def package_version(package: str) -> str:
    """The installed version of a package, "0" if there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "0"


def digest(key: object) -> str:
    """A hexadecimal digest of anything made of mappings, sequences, numbers and strings."""
    text = json.dumps(key, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/anylatent`, or `~/.cache/anylatent` where the variable is not set."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "anylatent"


def cached(
    name: str, key: Mapping[str, object], build: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors that `build` makes, read from disk if they were made from the same `key`."""
    path = cache_directory() / f"{name}-{digest(key)}.safetensors"
    tensors = _read(path)
    if tensors is None:
        tensors = build()
        try:
            _write(path, tensors)
        except OSError as error:
            warnings.warn(f"cannot keep {path}: {error}; it is made again next time", stacklevel=2)
    return tensors


def _read(path: Path) -> dict[str, Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        warnings.warn(f"{path} is damaged ({error}) and is made again", stacklevel=3)
        return None


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
