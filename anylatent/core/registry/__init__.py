"""Parts by group and name, what they are built from, and the plugins that bring them."""

from anylatent.core.registry.building import build
from anylatent.core.registry.declarations import Group, check_facts, declared, facts, group
from anylatent.core.registry.part import Maker, Part, RegistryError
from anylatent.core.registry.plugins import broken, discover, load_plugins, plugin_modules
from anylatent.core.registry.store import get, groups, known, names, part, register
from anylatent.core.registry.table import table

__all__ = [
    "Group",
    "Maker",
    "Part",
    "RegistryError",
    "broken",
    "build",
    "check_facts",
    "declared",
    "discover",
    "facts",
    "get",
    "group",
    "groups",
    "known",
    "load_plugins",
    "names",
    "part",
    "plugin_modules",
    "register",
    "table",
]
