"""`anylatent invert`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anylatent.core.cli.command import Command
from anylatent.core.registry import register

if TYPE_CHECKING:
    from anylatent.core.reports.inversion import InversionConfig


@register("command", "invert")
class Invert(Command):
    """Data to the noise that the model makes them from, and back."""

    usage = """\
invert run=runs/emoji n=8 [solver=dpmpp_2m steps=50 data=folder data.path=mine]
    data to the noise that the model makes them from, and back; 'sample noise=FILE' edits them"""
    choices = {"solver": "dpmpp_2m", "grid": "soft", "guidance": "none", "data": "openmoji"}
    defaults = {"steps": 50}
    own = ("grid", "data")

    @property
    def config(self) -> type:
        from anylatent.core.reports.inversion import InversionConfig

        return InversionConfig

    def run(self, config: InversionConfig) -> None:
        from anylatent.core.cli.reporting import reporting
        from anylatent.core.reports.inversion import Inversion

        with reporting(Inversion, config) as report:
            report.write()
