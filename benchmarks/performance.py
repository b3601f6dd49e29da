"""All ratios that are aimed at, as one table: results/performance.md.

    python benchmarks/performance.py [--only startup,cache]

Each is a ratio within one run of a benchmark, which alternates what it compares, so that it means
the same on another machine. `--only` measures some, and leaves the others as they are in the table.
Exits with 1 where a ratio that was measured misses its aim. What a machine
can not measure (bfloat16 where it is emulated) is said.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from anylatent.core.support.files import save_text
from anylatent.core.support.hardware import has_bfloat16

HERE = Path(__file__).resolve().parent
TABLE = HERE / "results" / "performance.md"


@dataclass(frozen=True)
class Aim:
    """A ratio by its name in what a benchmark prints, and what it should be at most or at least."""

    what: str
    name: str
    most: float | None = None
    least: float | None = None
    bf16: bool = False

    def meets(self, ratio):
        return (self.most is None or ratio <= self.most) and (
            self.least is None or ratio >= self.least
        )

    def __str__(self):
        return f"<= {self.most:g}" if self.most is not None else f">= {self.least:g}"


BENCHMARKS = {
    "startup": (
        ["cli_startup.py"],
        [
            Aim("`train --help` beside `import torch`, processor time", "train --help", 2.2),
            Aim("`list` beside `import torch`", "anylatent list", 0.2),
        ],
    ),
    "solvers": (
        ["solver_overhead.py"],
        [
            Aim("overhead of solvers beside diffusers', the worst", "worst", 0.45),
            Aim("overhead of solvers beside diffusers', the median", "median", 0.25),
            Aim("overhead of plms", "plms", 0.45),
            Aim("overhead of pndm", "pndm", 0.45),
            Aim("overhead of adams of order 3 beside their 3M", "adams 3", 0.45),
        ],
    ),
    "brownian": (
        ["brownian.py"],
        [
            Aim("a step of dpmpp_2m_sde beside euler_ancestral's, 20 steps", "20 steps", 8),
            Aim("a step of dpmpp_2m_sde beside euler_ancestral's, 50 steps", "50 steps", 8),
        ],
    ),
    "cache": (
        ["cache.py", "--quick", "--items", "200000"],
        [
            Aim("memory to build a latent cache beside its size", "latents, 200000, 1", 1.3),
        ],
    ),
    "unet": (
        ["unet_speed.py"],
        [
            Aim("U-Net step beside diffusers' best form, fp32", "fp32, 1 threads", least=1.08),
            Aim(
                "U-Net step beside diffusers' best form, fp32, two threads",
                "fp32, 2 threads",
                least=1.08,
            ),
            Aim(
                "U-Net step beside diffusers' best form, bf16",
                "bf16, 1 threads",
                least=1.4,
                bf16=True,
            ),
            Aim(
                "U-Net step beside diffusers' best form, bf16, two threads",
                "bf16, 2 threads",
                least=1.4,
                bf16=True,
            ),
        ],
    ),
    "transformers": (
        ["transformer_speed.py"],
        [
            Aim("DiT step beside a plain one, fp32", "DiT, fp32", least=1.0),
            Aim("DiT step beside a plain one, bf16", "DiT, bf16", least=1.0, bf16=True),
            Aim("text transformer beside a plain one, fp32", "text transformer, fp32", least=1.0),
            Aim(
                "text transformer beside a plain one, bf16",
                "text transformer, bf16",
                least=1.0,
                bf16=True,
            ),
        ],
    ),
    "muon": (
        ["training_share.py"],
        [
            Aim("Muon's share of a step, emoji", "emoji_cpu", 0.17),
            Aim("Muon's share of a step, molecules", "molecule_cpu", 0.11),
            Aim("Muon's share of a step, texts", "text_cpu", 0.20),
        ],
    ),
    "sampling": (
        ["sampling_precision.py"],
        [
            Aim("sampling in bf16 beside float32, emoji", "emoji", least=1.6, bf16=True),
            Aim("sampling in bf16 beside float32, molecules", "molecule", least=1.4, bf16=True),
            Aim("sampling in bf16 beside float32, texts", "text", least=2.0, bf16=True),
        ],
    ),
}


def machine():
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    low = "bfloat16" if has_bfloat16("cpu") else "no bfloat16"
    return f"{processor}, {low}, torch {torch.__version__}, Python {platform.python_version()}"


def measured(command):
    """The ratios that a benchmark prints in its last line."""
    done = subprocess.run(
        [sys.executable, str(HERE / command[0]), *command[1:]],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout, flush=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ratios ")]
    if done.returncode or not lines:
        print(f"{command[0]} failed with {done.returncode}", flush=True)
        return {}
    return json.loads(lines[-1].removeprefix("ratios "))


def kept():
    """The rows of the table as it is, by what they are of."""
    if not TABLE.exists():
        return {}
    rows = (line.strip("| ").split(" | ") for line in TABLE.read_text().splitlines())
    return {row[0]: row for row in rows if len(row) == 5}


def row_of(aim, ratios, today):
    if aim.bf16 and not has_bfloat16("cpu"):
        return [aim.what, str(aim), "", "not measured: no bfloat16 here", today]
    if aim.name not in ratios:
        return [aim.what, str(aim), "", "**no**: its benchmark failed", today]
    ratio = ratios[aim.name]
    return [aim.what, str(aim), f"{ratio:.2f}", "yes" if aim.meets(ratio) else "**no**", today]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(BENCHMARKS))
    options = parser.parse_args()
    rows, missed, today = kept(), [], f"{time.strftime('%Y-%m-%d')}, {machine()}"
    for name in options.only.split(","):
        command, aims = BENCHMARKS[name]
        can = has_bfloat16("cpu") or not all(aim.bf16 for aim in aims)
        ratios = measured(command) if can else {}
        for aim in aims:
            rows[aim.what] = row_of(aim, ratios, today)
            print(" | ".join(rows[aim.what][:4]), flush=True)
            missed += [aim.what] if rows[aim.what][3].startswith("**no**") else []
        write(rows)
    if missed:
        raise SystemExit(f"missed: {'; '.join(missed)}")


def write(rows):
    order = [aim.what for _, aims in BENCHMARKS.values() for aim in aims]
    lines = ["| " + " | ".join(rows[what]) + " |" for what in order if what in rows]
    head = "| a ratio in one run | aim | found | met | when and where |"
    save_text(TABLE, "\n".join([HEAD, head, "| --- | --- | --- | --- | --- |", *lines, ""]))


HEAD = """\
# Performance

`make bench` measures these and fails where one misses its aim. Each is a ratio within one run,
which alternates what it compares, so that it means the same on another machine; `python
benchmarks/performance.py --only startup,cache` measures some again. Each benchmark prints more than
its ratio, and says at its head what it does.
"""


if __name__ == "__main__":
    main()
