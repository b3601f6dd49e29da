"""`anylatent benchmark`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anylatent.core.cli.commands.sample import draw


def run(config: Mapping[str, Any]) -> None:
    from anylatent.core.reports.evaluation import Evaluation

    Evaluation(config, draw).benchmark()
