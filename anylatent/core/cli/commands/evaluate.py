"""`anylatent evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anylatent.core.cli.command import DRAWING, SAMPLING, Command
from anylatent.core.registry import register

if TYPE_CHECKING:
    from anylatent.core.reports.evaluation import EvaluationConfig


@register("command", "evaluate")
class Evaluate(Command):
    """Figures of the model's samples and reconstructions."""

    usage = """\
evaluate run=runs/emoji [n=1000]
    figures of the model's samples and reconstructions"""
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
            report.evaluate()
