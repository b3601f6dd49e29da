"""Hydra's errors in the words of this program: what was got, what there is, what to do."""

from __future__ import annotations

import difflib
import re


def explain(error: BaseException) -> str:
    """One message for an error; the cause is looked for behind Hydra's wrappers."""
    text = str(error).split("Config search path")[0].strip() or type(error).__name__
    cause = error.__cause__
    if cause is not None and type(cause).__module__.startswith("omegaconf"):
        text = f"{text}\n{str(cause).strip()}"
    text = "\n".join(line for line in text.splitlines() if "full_key" not in line)
    text = "\n".join(line for line in text.splitlines() if "object_type" not in line)
    return text + _suggestion(text)


def _suggestion(text: str) -> str:
    """The parts of a group, or the settings of a part, where a message names a wrong one."""
    from anylatent.core.registry import RegistryError, groups, names, part

    missing = re.search(r"Could not override '([\w.]+)'", text)
    if missing is None:
        return ""
    path = missing.group(1).split(".")
    try:
        if len(path) == 1:
            close = difflib.get_close_matches(path[0], groups(), 3)
            return f"\nGroups are {', '.join(groups())}" + (
                f". Did you mean {close[0]}?" if close else ""
            )
        settings = {n: ", ".join(part(path[0], n).settings()) or "none" for n in names(path[0])}
    except RegistryError:
        return ""
    lines = "\n".join(f"  {path[0]}={name}: {listed}" for name, listed in settings.items())
    return f"\nSettings of the group '{path[0]}':\n{lines}"
