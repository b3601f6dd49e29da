"""The picture of a comparison of solvers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anylatent.core.reports.solvers.comparison import FLOW, Comparison, Solution
from anylatent.core.support.files import replacing

LEAST = 1e-9
"""The least error that is drawn."""
MARKERS, STYLES = "os^Dv", ("-", "--", ":", "-.")


def plot(found: Comparison, budgets: Sequence[int], titles: Mapping[str, str], path: Path) -> None:
    """Errors against evaluations, a panel for each title; what is in doubt is drawn no lower.

    A solver has a colour and a marker, a grid a style of its line.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = {title: line for kind, title in titles.items() if (line := found.lines(kind))}
    figure, axes = pyplot.subplots(1, len(lines), figsize=(7.5 * len(lines), 5), squeeze=False)
    for axis, (title, by_label) in zip(axes[0], lines.items(), strict=True):
        _panel(axis, by_label)
        axis.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="median error")
        axis.set_xticks(budgets, [str(budget) for budget in budgets])
        axis.set_xticks([], minor=True)
        axis.set_title(title.replace(": ", "\n", 1), fontsize=9)
        axis.grid(alpha=0.3)
        axis.legend(
            fontsize=7, ncols=-(-len(by_label) // 26), loc="center left", bbox_to_anchor=(1, 0.5)
        )
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)


def _panel(axis: Any, lines: Mapping[str, Sequence[Solution]]) -> None:
    everything = [one for line in lines.values() for one in line]
    solvers = list(dict.fromkeys(one.solver for one in everything))
    grids = list(dict.fromkeys(one.grid for one in everything if one.grid))
    for label, line in lines.items():
        shown = [one for one in line if math.isfinite(one.error)]
        k = solvers.index(line[0].solver)
        errors = [max(one.error, one.doubt, LEAST) for one in shown]
        axis.plot(
            [one.evaluations for one in shown],
            errors,
            color=f"C{k % 10}",  # there are ten
            marker=MARKERS[k // 10 % len(MARKERS)],
            linestyle=STYLES[grids.index(line[0].grid) % len(STYLES)] if line[0].grid else "-",
            label=label,
        )
    if everything[0].against == FLOW:
        doubt = max(everything[0].doubt, LEAST)
        axis.axhline(doubt, color="grey", linestyle=":", label="doubt")
