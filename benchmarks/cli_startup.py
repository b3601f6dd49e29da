"""What the command line costs before it does anything, beside importing torch.

    python benchmarks/cli_startup.py [repeats]

Medians of interleaved fresh processes. Target: `anylatent --help` at most half a second more than
`python -c "import torch"`.
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import anylatent": [sys.executable, "-c", "import anylatent"],
    "anylatent --help": [sys.executable, "-m", "anylatent.core.cli.main", "--help"],
    "anylatent list": [sys.executable, "-m", "anylatent.core.cli.main", "list"],
}


def main():
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    found = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            found[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in found.items()}
    print(f"{'command':<20}{'seconds':>9}{'beside torch':>14}{'ratio':>8}")
    for name, seconds in medians.items():
        torch = medians["import torch"]
        print(f"{name:<20}{seconds:>9.2f}{seconds - torch:>+14.2f}{seconds / torch:>8.2f}")


if __name__ == "__main__":
    main()
