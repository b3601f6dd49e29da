"""Parts by group and name, what they are built from, and the plugins that bring them."""

from anylatent.core.registry.building import build, completed
from anylatent.core.registry.part import Part, RegistryError
from anylatent.core.registry.plugins import broken, discover, plugin_modules
from anylatent.core.registry.store import get, groups, names, part, register

__all__ = [
    "Part",
    "RegistryError",
    "broken",
    "build",
    "completed",
    "discover",
    "get",
    "groups",
    "names",
    "part",
    "plugin_modules",
    "register",
]
