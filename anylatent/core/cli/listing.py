"""`anylatent list`: every group and part with one line each."""

from __future__ import annotations

from anylatent.core.registry import RegistryError, table
from anylatent.core.support.files import UserError


def show(arguments: list[str]) -> None:
    """Prints all groups, or one with the settings of its parts."""
    every = table()
    if arguments[:1] in (["-h"], ["--help"]):
        print("usage: anylatent list [GROUP]")
        print("    the registered parts, or those of one group with their settings: of", end=" ")
        print(", ".join(every))
        return
    if len(arguments) > 1:
        raise UserError(f"'anylatent list' takes one group at most, got {' '.join(arguments)}")
    for group in arguments:
        if group not in every:
            raise RegistryError(f"no group '{group}'; there are {', '.join(every)}")
    for group in arguments or every:
        rows = every[group]
        width = max((len(name) for name in rows.parts), default=0)
        if not arguments:
            print(group)
        for name, row in rows.parts.items():
            print(f"  {name:<{width}}  {row.summary}")
            if arguments and (row.settings or row.parts):
                own = [f"{key}={default}" for key, default in row.settings.items()]
                own += [f"{key}={inner} (a {kind})" for key, (kind, inner) in row.parts.items()]
                print(f"  {'':<{width}}  settings: {', '.join(own)}")
        if arguments and rows.offered:
            print(f"a {group} may also ask for: {', '.join(rows.offered)}")
