"""Hydra's errors in the words of this program: what was got, what there is, what to do."""

from __future__ import annotations

import difflib
import re

# lines of hydra that lead a user nowhere
HIDDEN = ("full_key", "object_type", "append to your")


def explain(error: BaseException, command: str = "train") -> str:
    """One message for an error; the cause is looked for behind Hydra's wrappers."""
    text = str(error).split("Config search path")[0].strip() or type(error).__name__
    missing = getattr(error, "full_key", None)
    if missing and text.startswith("Missing mandatory value"):
        return f"{missing} must be set: {missing}=..."
    wrong = getattr(error, "override", None)  # hydra's parser names it apart
    if isinstance(wrong, str) and wrong not in text:
        text = f"can not read '{wrong}': {text.splitlines()[0]}"
    cause = error.__cause__
    if cause is not None and type(cause).__module__.startswith("omegaconf"):
        text = f"{text}\n{str(cause).strip()}"
    lines = (line for line in text.splitlines() if not any(word in line for word in HIDDEN))
    text = "\n".join(lines)
    return text + _suggestion(text, command)


def _suggestion(text: str, command: str) -> str:
    """The parts of a group, or the settings of a part, where a message names a wrong one."""
    from anylatent.core.registry import RegistryError, broken, groups, names, part

    if "Could not find" in text:
        return broken().replace(". ", "\n", 1)
    missing = re.search(r"Could not override '([\w.]+)'", text)
    if missing is None:
        return ""
    path = missing.group(1).split(".")
    try:
        if len(path) == 1 and not _keys([], command):
            return f"\n'{command.replace('_', ' ')}' takes no settings"
        if len(path) == 1:
            close = difflib.get_close_matches(path[0], [*groups(), *_keys([], command)], 1)
            return (
                f"\nGroups are {', '.join(groups())}\nKeys are {', '.join(_keys([], command))}"
                + (f"\nDid you mean {close[0]}?" if close else "")
            )
        if path[0] not in groups():
            return f"\nKeys of '{'.'.join(path[:-1])}': {', '.join(_keys(path[:-1], command))}"
        settings = {n: ", ".join(part(path[0], n).settings()) or "none" for n in names(path[0])}
    except RegistryError:
        return ""
    lines = "\n".join(f"  {path[0]}={name}: {listed}" for name, listed in settings.items())
    return f"\nSettings of the group '{path[0]}':\n{lines}"


def _keys(path: list[str], command: str) -> list[str]:
    """The keys at a place of a command's configuration as it is without overrides."""
    from hydra import compose, initialize_config_module
    from omegaconf import DictConfig

    with initialize_config_module("anylatent.conf", version_base="1.3"):
        node: object = compose(command)
    for key in path:
        node = node.get(key) if isinstance(node, DictConfig) else None
    return sorted(str(key) for key in node) if isinstance(node, DictConfig) else []
