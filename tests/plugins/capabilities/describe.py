"""A command of a plugin, in one file: what a run is made of."""

from dataclasses import dataclass, field

import anylatent as al


@dataclass
class DescribeConfig:
    """Of which run; `ages` stands for a list of numbers, `solver` for a choice among parts."""

    run: str
    solver: al.Node
    wide: bool = False
    ages: list[int] = field(default_factory=lambda: [1, 2])


@al.register("command", "describe")
class Describe(al.Command):
    """Prints a run's backbone and a solver."""

    usage = "describe run=runs/emoji"
    choices = {"solver": "heun"}
    own = ("solver",)

    @property
    def config(self):
        return DescribeConfig

    def run(self, config):
        run = al.load(config.run, device="cpu")
        name = run.config.model.backbone["name"]
        print(f"{name}, {config.solver['name']}, {sum(config.ages)}, {config.wide}")
