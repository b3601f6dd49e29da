"""What a comparison of solvers is asked for, and what `anylatent sample` is told of its outcome."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anylatent.core.registry import build, names, part
from anylatent.core.reports.solvers.comparison import Solution
from anylatent.core.runs import Node
from anylatent.core.solvers import Adaptive, Solver
from anylatent.core.support.files import UserError

LOOSEST, TIGHTEST = 0.3, 1e-5
"""Tolerances of solvers that choose their own steps."""


def budgets_of(given: Any, reference: int, n: int, batch: int) -> list[int]:
    """The evaluations that are asked for, rising; checks the other numbers as well."""
    budgets = given if isinstance(given, list) else [given]
    if not budgets or not all(type(b) is int and b > 0 for b in budgets):
        raise UserError(f"evaluations={given}: whole numbers above 0, such as [5,10,20,50]")
    if reference < 2 * max(budgets):
        raise UserError(
            f"reference={reference}: it needs at least twice the {max(budgets)} "
            "evaluations that are judged by it"
        )
    if n < 4:
        raise UserError(f"n={n}: a comparison needs at least four samples")
    if batch < 1:
        raise UserError(f"batch={batch}: at least one sample at a time")
    return sorted(set(budgets))


def solvers_of(given: Any) -> dict[str, list[Solver]]:
    """All solvers, or those that are named, each at the tolerances that it has to be tried at."""
    wanted = names("solver") if given is None else given
    nodes = nodes_of(
        "solver", wanted, "[heun,ddim], or with settings, such as [{name:ddim,eta:0.5}]"
    )
    return {label: list(_variants(node)) for label, node in nodes.items()}


def _variants(node: Node) -> Iterator[Solver]:
    """A solver; one that chooses its own steps at ever smaller tolerances, if none is given.

    Each costs about half as much again as the one before it.
    """
    solver: Solver = build("solver", node)
    if not isinstance(solver, Adaptive) or "tolerance" in node:
        yield solver
        return
    tolerance = LOOSEST
    while tolerance >= TIGHTEST:
        yield build("solver", {**node, "tolerance": float(f"{tolerance:.1g}")})
        tolerance /= 1.5 ** (1 / solver.power)


def nodes_of(group: str, given: Any, example: str) -> dict[str, Node]:
    """Those that are named, with their defaults or the settings given, by label."""
    wanted = [given] if isinstance(given, str) else given
    if not isinstance(wanted, list) or not wanted:
        raise UserError(f"{group}s={given}: names of {group}s, such as {example}")
    nodes = [{"name": one} if isinstance(one, str) else one for one in wanted]
    for node in nodes:
        build(group, node)
    return {" ".join([node["name"], *_changed(group, node)]): node for node in nodes}


def _changed(group: str, node: Node) -> Iterator[str]:
    """The settings that are not the defaults, as they are given on the command line."""
    known = part(group, node["name"])
    for key, value in node.items():
        if key in known.parts:
            inner, default = known.parts[key]
            if value["name"] != default:
                yield f"{inner}@{key}={value['name']}"
            yield from (_under(key, one) for one in _changed(inner, value))
        elif key != "name" and value != known.settings()[key][1]:
            yield f"{key}={value}".replace(" ", "")


def _under(key: str, setting: str) -> str:
    """A setting of a part at `key`: key.eta=1 for eta=1, solver@key.base= for solver@base=."""
    group, at, path = setting.rpartition("@")
    return f"{group}{at}{key}.{path}"


def overrides(one: Solution) -> str:
    """What makes `anylatent sample` solve like this."""
    words = _words("solver", one.solver)
    if one.tolerance is not None:
        words.append(f"solver.tolerance={one.tolerance:g}")
    if one.grid is not None:
        words += _words("grid", one.grid)
    return " ".join([*dict.fromkeys(words), f"steps={one.steps}"])


def _words(group: str, label: str) -> list[str]:
    name, *settings = label.split(" ")
    return [f"{group}={name}", *(_under(group, setting) for setting in settings)]
