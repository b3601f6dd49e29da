"""What the command line costs before it does anything, beside importing torch.

    python benchmarks/cli_startup.py [repeats]

Medians of interleaved fresh processes, in seconds of the processor. Targets beside
`python -c "import torch"`: `train --help` at most 2.2 times that, `list` at most 0.2 times.
"""

import json
import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import anylatent": [sys.executable, "-c", "import anylatent"],
    "anylatent --help": [sys.executable, "-m", "anylatent.core.cli.main", "--help"],
    "train --help": [sys.executable, "-m", "anylatent.core.cli.main", "train", "--help"],
    "anylatent list": [sys.executable, "-m", "anylatent.core.cli.main", "list"],
}


def main():
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    found = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            start = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, capture_output=True)
            end = resource.getrusage(resource.RUSAGE_CHILDREN)
            found[name].append(end.ru_utime - start.ru_utime + end.ru_stime - start.ru_stime)
    medians = {name: statistics.median(times) for name, times in found.items()}
    print(f"{'command':<20}{'seconds':>9}{'beside torch':>14}{'ratio':>8}")
    for name, seconds in medians.items():
        torch = medians["import torch"]
        print(f"{name:<20}{seconds:>9.2f}{seconds - torch:>+14.2f}{seconds / torch:>8.2f}")
    ratios = {name: seconds / medians["import torch"] for name, seconds in medians.items()}
    print("ratios", json.dumps(ratios))


if __name__ == "__main__":
    main()
