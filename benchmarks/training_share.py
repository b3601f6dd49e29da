"""What a step of training is spent on: Muon, the network, and all else, for each `_cpu` experiment.

    python benchmarks/training_share.py [steps] [--only emoji_cpu,text_cpu]

Trains each experiment's diffusion stage for some steps (default 40) by the command that a user
types, after a single step of its autoencoder where it has one, in a directory that goes afterwards.
Processor time of one thread; the first five steps are left out. Target for Muon: at most .17 of a
step on emoji, .11 on molecules, .20 on texts.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from anylatent.core.cli.main import main as command
from anylatent.core.nn.backbone import Backbone
from anylatent.core.training.module import StageModule
from anylatent.core.training.optimizers import Muon

EXPERIMENTS = ("emoji_cpu", "molecule_cpu", "text_cpu")
FIRST = 5


class Watch:
    """The processor time of each call of a method, in order, while it is watched."""

    def __init__(self, owner, name):
        self.owner, self.name, self.usual, self.times = owner, name, getattr(owner, name), []
        usual, times = self.usual, self.times

        def watched(self, *args, **settings):
            start = time.process_time()
            try:
                return usual(self, *args, **settings)
            finally:
                times.append(time.process_time() - start)

        setattr(owner, name, watched)

    def a_step(self, steps):
        """The median of the time in each of the last so many steps, in which there may be several
        calls; the first of those are left out."""
        last = self.times[len(self.times) % steps :]
        each = len(last) // steps
        sums = [sum(last[i : i + each]) for i in range(0, len(last), each)]
        return statistics.median(sums[-steps + FIRST :])

    def end(self):
        setattr(self.owner, self.name, self.usual)


def share_of(experiment, steps):
    """The median seconds of a step, and of Muon in it."""
    with tempfile.TemporaryDirectory() as folder:
        run = f"run={Path(folder) / 'run'}"
        told = [f"experiment={experiment}", run, "trainer.accelerator=cpu", "pictures.every=0"]
        told += ["training.autoencoder.steps=1", f"training.diffusion.steps={steps}"]
        step, muon = Watch(StageModule, "training_step"), Watch(Muon, "step")
        forward = Watch(Backbone, "__call__")
        try:
            command(["train", *told])
        finally:
            for watch in (step, muon, forward):
                watch.end()
    return [watch.a_step(steps) for watch in (step, muon, forward)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("steps", nargs="?", type=int, default=40)
    parser.add_argument("--only", default=",".join(EXPERIMENTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, ratios = [], {}
    for experiment in options.only.split(","):
        whole, muon, forward = share_of(experiment, options.steps)
        ratios[experiment] = muon / whole
        numbers = f"{1e3 * whole:.0f} | {muon / whole:.2f} | {forward / whole:.2f}"
        rows.append(f"| {experiment} | {numbers} |")
    print("\n| experiment | a step, ms | Muon | the network, forward |")
    print("| --- | --- | --- | --- |", *rows, sep="\n")
    print("ratios", json.dumps(ratios))


if __name__ == "__main__":
    main()
