"""What a backbone that nobody visits pays for the sites where guests could be put.

    python benchmarks/guests.py [--before PATH] [--turns 20] [--rounds 5] [--only unet,dit]

Milliseconds of processor time of one thread for a call of each registered backbone as it comes,
without gradients, four samples of its default latent. `now` is without a guest, `idle` with one
that changes nothing. `--before` names a checkout to compare with, such as one from before there
were guests: it answers from a process of its own, the two take turns call by call, and who begins
changes with each turn. A round starts both processes anew, since where a process finds its memory
moves its times by some hundredths. Times are medians over the turns of all rounds, and ratios are
medians of the ratios of calls of one turn, which were beside one another in time. `same` tells
whether outputs are equal bit for bit. Target: within 2 % of before.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

WARM = 5  # calls before the first that counts


# ---- the process of one checkout ----------------------------------------------------------------
def work():
    """Answers lines [backbone, whether with an idle guest] on stdin by seconds on stdout."""
    import torch

    warnings.simplefilter("ignore")  # an older checkout lacks what is installed beside it
    import anylatent as al

    torch.set_num_threads(1)
    networks = {}
    for name in al.names("backbone"):
        torch.manual_seed(0)
        networks[name] = woken(al.get("backbone", name)().eval())
    inputs = {name: begin(al, network) for name, network in networks.items()}
    with torch.no_grad():
        say({name: digest(networks[name](*inputs[name])) for name in networks})
        for line in sys.stdin:
            name, visited = json.loads(line)
            more = {"guest": al.Guest()} if visited else {}
            start = time.process_time()
            networks[name](*inputs[name], **more)
            say(time.process_time() - start)


def woken(network):
    """With weights where it starts at zero, so that all of it has numbers to work on."""
    import torch

    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def begin(al, network):
    import torch

    x = al.Noise.of(0, 4).like(al.testing.example(network.spec, dtype=torch.float32))
    return x, torch.tensor([-2.0, 0.0, 1.0, 3.0])


def digest(latent):
    found = hashlib.sha256()
    for x in latent.parts.values():
        found.update(x.contiguous().numpy().tobytes())
    return found.hexdigest()


def say(value):
    print(json.dumps(value), flush=True)


# ---- the comparison -----------------------------------------------------------------------------
class Worker:
    """A process that times calls of one checkout."""

    def __init__(self, checkout):
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work"],
            env=environment,
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.digests = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process ended; its error is above")
        return json.loads(line)

    def time(self, name, visited=False):
        """Milliseconds of a call."""
        print(json.dumps([name, visited]), file=self.process.stdin, flush=True)
        return 1e3 * self.read()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def one_round(before, turns, only):
    """By backbone and side, the times of one pair of processes; and which outputs are equal."""
    now, old = Worker(Path(__file__).parents[1]), before and Worker(before)
    found, same = {}, {}
    for name in only or now.digests:
        sides = {"now": lambda n=name: now.time(n), "idle": lambda n=name: now.time(n, True)}
        if old and name in old.digests:
            sides["before"] = lambda n=name: old.time(n)
            same[name] = old.digests[name] == now.digests[name]
        found[name] = {side: [] for side in sides}
        for turn in range(WARM + turns):
            for side in sorted(sides, reverse=turn % 2 == 1):
                milliseconds = sides[side]()
                if turn >= WARM:
                    found[name][side].append(milliseconds)
    for worker in filter(None, (now, old)):
        worker.end()
    return found, same


def report(rounds, same):
    """A line for each backbone."""
    median = statistics.median
    print(f"{'backbone':<16}{'before':>9}{'now':>9}{'ratio':>8}{'idle':>9}{'ratio':>8}  same")
    for name, first in rounds[0].items():

        def cells(side, other, name=name, first=first):
            """The time of a side, and its ratio to the other, where both are there."""
            if side not in first or other not in first:
                return None, None
            times, others = ([t for r in rounds for t in r[name][s]] for s in (side, other))
            return median(times), median(a / b for a, b in zip(times, others, strict=True))

        before, _ = cells("before", "now")
        now, _ = cells("now", "now")
        _, slower = cells("now", "before")
        idle, more = cells("idle", "now")
        row = f"{name:<16}{shown(before, 2):>9}{shown(now, 2):>9}{shown(slower, 3):>8}"
        word = {True: "yes", False: "no", None: "-"}[same.get(name)]
        print(f"{row}{shown(idle, 2):>9}{shown(more, 3):>8}  {word}")


def shown(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=lambda path: Path(path).resolve())
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", type=lambda names: names.split(","))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        return work()
    rounds, same = [], {}
    for _ in range(chosen.rounds):
        found, same = one_round(chosen.before, chosen.turns, chosen.only)
        rounds.append(found)
    report(rounds, same)


if __name__ == "__main__":
    main()
