"""Plugins: modules that register parts by being imported.

They are named by the entry-point group `anylatent.plugins` or by `ANYLATENT_PLUGINS=module,module`.
The modalities that come with anylatent take the same path.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import warnings
from importlib import metadata

from anylatent.core.registry.part import RegistryError

ENTRY_POINTS = "anylatent.plugins"
ENVIRONMENT = "ANYLATENT_PLUGINS"

_failures: dict[str, BaseException] = {}
_modules: list[str] = []
_loaded = False


def load_plugins() -> None:
    """Imports every plugin once; one that fails is a warning, and the rest works."""
    global _loaded
    if _loaded:
        return
    _loaded = True
    sources = [(entry.name, entry.value) for entry in metadata.entry_points(group=ENTRY_POINTS)]
    named = [module.strip() for module in os.environ.get(ENVIRONMENT, "").split(",")]
    sources += [(module, module) for module in named if module]
    sources.sort(key=lambda source: not source[1].startswith("anylatent."))  # they declare groups
    for name, module in dict.fromkeys(sources):
        try:
            importlib.import_module(module)
            _modules.append(module)
        except RegistryError:  # two parts of one name: which is meant can't be known
            _loaded = False
            raise
        except Exception as error:
            _failures[name] = error
            warnings.warn(
                f"plugin '{name}' ({module}) could not be imported and is left out: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )


def plugin_modules() -> list[str]:
    """The modules of the plugins that could be imported."""
    load_plugins()
    return list(_modules)


def broken() -> str:
    """What to add to a message about a missing part: the plugins that it may have been in."""
    return "".join(
        f". Plugin '{name}' could not be imported: {type(error).__name__}: {error}"
        for name, error in _failures.items()
    )


def discover(package: str) -> None:
    """Imports every module below a package, so that a part in a file of its own is registered."""
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{package}."):
        importlib.import_module(found.name)
