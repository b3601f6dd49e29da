"""`anylatent list`: every group and part with one line each."""

from __future__ import annotations

from anylatent.core.registry import declared, groups, names, part
from anylatent.core.support.files import UserError


def show(arguments: list[str]) -> None:
    """Prints all groups, or one with the settings of its parts."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(
            "usage: anylatent list [GROUP]\n  the registered parts, or those of a group with their"
        )
        print(f"  settings; groups are {', '.join(groups())}")
        return
    if len(arguments) > 1:
        raise UserError(f"'anylatent list' takes one group at most, got {' '.join(arguments)}")
    chosen = arguments or groups()
    for group in chosen:
        options = names(group)
        width = max(len(name) for name in options)
        if len(chosen) > 1:
            print(group)
        for name in options:
            record = part(group, name)
            print(f"  {name:<{width}}  {record.summary}")
            settings = record.settings()
            if len(chosen) == 1 and (settings or record.parts):
                own = [f"{key}={default}" for key, (_, default) in settings.items()]
                own += [f"{key}={inner} (a {kind})" for key, (kind, inner) in record.parts.items()]
                print(f"  {'':<{width}}  settings: {', '.join(own)}")
        offered = declared(group).offered()
        if len(chosen) == 1 and offered:
            print(f"a {group} may also ask for: {', '.join(offered)}")
