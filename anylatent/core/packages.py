"""Data and weights that come inside installed packages, found without importing them."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path


class MissingPackage(ImportError):
    """A package is not installed; the message says what for, and how to get it."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed or incomplete: "
            f"pip install {install}"
        )


def package_file(package: str, *parts: str, purpose: str, install: str) -> Path:
    """The path of a file inside an installed package, which is not imported.

    `package` is its name on the package index; its module has the same name with underscores.
    Raises `MissingPackage` where the package or the file is missing.
    """
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, *parts)
        if path.exists():
            return path
    raise MissingPackage(package, purpose, install)


def package_version(package: str) -> str:
    """The installed version of a package, "0" if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "0"
