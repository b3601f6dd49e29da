"""`anylatent benchmark solvers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def run(config: Mapping[str, Any]) -> None:
    from anylatent.core.reports.solvers.report import SolverReport

    SolverReport(config).write()
