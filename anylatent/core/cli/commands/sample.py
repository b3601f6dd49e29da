"""`anylatent sample`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anylatent.core.cli.command import DRAWING, SAMPLING, Command
from anylatent.core.registry import register

if TYPE_CHECKING:
    from anylatent.core.runs import SampleConfig


@register("command", "sample")
class Sample(Command):
    """Draws samples, saved as files with a contact sheet."""

    usage = """\
sample run=runs/emoji n=16 seed=0 [solver=dpmpp_2m steps=20 guidance.scale=3
               cond.category=flags out=samples]
    draws samples, saved as files with a contact sheet"""
    choices = DRAWING
    defaults = {"steps": 20}
    own = SAMPLING

    @property
    def config(self) -> type:
        from anylatent.core.runs import SampleConfig

        return SampleConfig

    def run(self, config: SampleConfig) -> None:
        from anylatent.core.runs import write_samples

        write_samples(config)
