"""`anylatent benchmark solvers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anylatent.core.cli.command import Command
from anylatent.core.registry import register

if TYPE_CHECKING:
    from anylatent.core.reports.solvers.report import SolversConfig


@register("command", "solvers")
class Solvers(Command):
    """How near each solver comes to the exact solution of a trained model."""

    usage = """\
benchmark solvers run=runs/emoji [n=16 evaluations=[5,10,20,50]]
    how near each solver comes to the model's exact solution, and which to use"""
    choices = {"solver": "dpmpp_3m", "guidance": "classifier_free"}
    defaults = {}
    own = ("guidance",)

    @property
    def config(self) -> type:
        from anylatent.core.reports.solvers.report import SolversConfig

        return SolversConfig

    def run(self, config: SolversConfig) -> None:
        from anylatent.core.cli.reporting import reporting
        from anylatent.core.reports.solvers.report import SolverReport

        with reporting(SolverReport, config) as report:
            report.write()
