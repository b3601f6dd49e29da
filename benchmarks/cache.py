"""Memory and time of data on disk: latents and pictures, one process and two that share the work.

    python benchmarks/cache.py [--items 20000,200000] [--directory /tmp/anylatent_cache_benchmark]

Latents are posteriors of 4 x 8 x 8 numbers with a label, pictures 64 px; both are made up, so that
their making costs little. Every process is a fresh one. It builds the cache, or waits for what
others build, then reads 50 batches of 128 drawn at random. Memory: the most that is resident above
what the process had before. `in memory` is one tensor that is read whole, which is how it was.

The directory needs 2.5 GB for 200,000 pictures, and is removed. Target: at most 300 MB, the same in
one process and in two.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

import anylatent as al
from anylatent.core.latents import Posterior
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.stored import Stored
from anylatent.core.training.latent_store import cached_latents
from anylatent.modalities.image.data.base import PictureData, Table

SPEC = al.testing.SPECS["image"]
SHAPE = (3, 64, 64)


def resident(peak):
    """MB of this process, now or at most since `forget_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


# ---- what is built and read -------------------------------------------------------------------
def gaussians(entries):
    noise = al.Noise.of(entries[0], len(entries))
    mean = noise.like(SPEC.blank(len(entries)))
    return Posterior(mean, mean.map(lambda x: 0.1 * x - 3))


def latents(items):
    cache = cached_latents(
        SPEC,
        "benchmark",
        items,
        lambda entries: (gaussians(entries), al.Condition({"label": torch.tensor(entries) % 10})),
    )
    return cache.__getitems__


class MadeUp(PictureData):
    def __init__(self, items):
        super().__init__({}, SHAPE, {}, 0.0, 0)
        self.items = items

    def table(self):
        def make(items):
            for start in range(items.start, items.stop, 64):
                yield {"pixels": drawn(start, min(start + 64, items.stop))}

        stored = self.stored("benchmark", {}, self.items, make, "drawing")
        names = ["" for _ in range(self.items)]
        return Table(Stored(stored, "pixels"), {}, names, [0] * self.items, range(self.items))


def drawn(start, stop):
    generator = torch.Generator().manual_seed(start)
    return torch.randint(0, 256, (stop - start, *SHAPE), dtype=torch.uint8, generator=generator)


def pictures(items):
    part = MadeUp(items).train()
    return lambda rows: torch.stack([item["image"] for item in part.__getitems__(rows)])


def latents_in_memory(items):
    def build():
        posterior = gaussians(list(range(items)))
        return {"mean": posterior.mean["z"], "log_std": posterior.log_std["z"]}

    tensors = cached("benchmark", items, build)
    return lambda rows: {name: tensor[torch.tensor(rows)] for name, tensor in tensors.items()}


def pictures_in_memory(items):
    def build():
        pixels = torch.empty(items, *SHAPE, dtype=torch.uint8)
        for start in range(0, items, 64):
            pixels[start : start + 64] = drawn(start, min(start + 64, items))
        return {"pixels": pixels}

    pixels = cached("benchmark", items, build)["pixels"]
    return lambda rows: pixels[torch.tensor(rows)].float() / 127.5 - 1


KINDS = {
    "latents": latents,
    "latents, in memory": latents_in_memory,
    "pictures": pictures,
    "pictures, in memory": pictures_in_memory,
}


# ---- one process ------------------------------------------------------------------------------
def work(kind, items):
    """Prints what it took as a line of JSON."""
    torch.set_num_threads(1)
    base, start = resident(False), time.perf_counter()
    forget_peak()
    read = KINDS[kind](items)
    built, build_peak = time.perf_counter() - start, resident(True) - base
    forget_peak()
    generator = torch.Generator().manual_seed(os.getpid())
    start = time.perf_counter()
    for _ in range(50):
        read(torch.randint(0, items, (128,), generator=generator).tolist())
    seconds, read_peak = time.perf_counter() - start, resident(True) - base
    print(json.dumps([base, built, build_peak, 1000 * seconds / 50, read_peak]))


def measure(kind, items, processes, directory):
    """The largest figures of any process."""
    environment = {**os.environ, "ANYLATENT_CACHE": str(directory), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--work", kind, str(items)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 2**20
    shutil.rmtree(directory)
    return [*(max(column) for column in zip(*found, strict=True)), size]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", default="20000,200000")
    parser.add_argument("--directory", type=Path, default=Path("/tmp/anylatent_cache_benchmark"))
    parser.add_argument("--quick", action="store_true", help="latents of one process alone")
    parser.add_argument("--work", nargs=2)
    options = parser.parse_args()
    if options.work:
        return work(options.work[0], int(options.work[1]))
    print("| | items | processes | on disk, MB | build, s | MB above | batch, ms | MB above |")
    print("|" + " --- |" * 8)
    ratios = {}
    for kind in ("latents",) if options.quick else KINDS:
        for items in map(int, options.items.split(",")):
            for processes in (1,) if "memory" in kind or options.quick else (1, 2):
                base, built, first, batch, second, size = measure(
                    kind, items, processes, options.directory
                )
                row = f"{size:.0f} | {built:.1f} | {first:.0f} | {batch:.2f} | {second:.0f}"
                print(f"| {kind} | {items:,} | {processes} | {row} |", flush=True)
                ratios[f"{kind}, {items}, {processes}"] = first / size
    print(f"\nA process has {base:.0f} MB before.")
    print("ratios", json.dumps(ratios))


if __name__ == "__main__":
    main()
