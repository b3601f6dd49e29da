"""Data and weights that come inside installed packages, found without importing them."""

from __future__ import annotations

import importlib.util
import re
from importlib import metadata
from pathlib import Path


class MissingPackage(ImportError):
    """A package is not installed; the message says what for, and how to get it."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed or incomplete: "
            f"pip install {_how(package)}"
        )


def _how(package: str) -> str:
    """The smallest extra that has the package, else the package without its dependencies."""
    extras: dict[str, list[str]] = {}
    for line in _requirements():
        found = re.match(r"([\w.-]+).*extra\s*==\s*['\"](\w+)['\"]", line)
        if found:
            extras.setdefault(found.group(2), []).append(found.group(1))
    having = [extra for extra, packages in extras.items() if package in packages]
    if not having:
        return f"--no-deps {package}"
    return f"'anylatent[{min(having, key=lambda extra: len(extras[extra]))}]'"


def _requirements() -> list[str]:
    try:
        return metadata.requires("anylatent") or []
    except metadata.PackageNotFoundError:
        return []


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
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "0"
