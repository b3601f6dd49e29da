"""`anylatent benchmark`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anylatent.core.cli.command import DRAWING, SAMPLING, Command
from anylatent.core.registry import register

if TYPE_CHECKING:
    from anylatent.core.reports.evaluation import EvaluationConfig


@register("command", "benchmark")
class Benchmark(Command):
    """Figures beside held-out data, data made worse and an untrained model; the speed."""

    usage = """\
benchmark modality=image run=runs/emoji
    the same beside held-out data, data made worse and an untrained model, and the speed"""
    choices = {**DRAWING, "likelihood": "elbo", "data": "openmoji"}
    defaults = {"steps": 20}
    own = (*SAMPLING, "data")

    @property
    def config(self) -> type:
        from anylatent.core.reports.evaluation import EvaluationConfig

        return EvaluationConfig

    def run(self, config: EvaluationConfig) -> None:
        from anylatent.core.cli.reporting import reporting
        from anylatent.core.reports.evaluation import Evaluation

        with reporting(Evaluation, config) as report:
            report.benchmark()
