"""Sampling in bfloat16 beside float32: time, and how far the latents are from one another.

    python benchmarks/sampling_precision.py [--runs emoji=RUN,molecule=RUN,text=RUN] [--n 64]

Of runs that are given, or of the `_cpu` experiments after a few steps, which take as long as those
that were trained. 20 steps of the experiment's own solver and guidance, one thread, batches
interleaved, medians. Target: 1.6 times as fast for emoji, 1.4 for molecules, 2.0 for texts. On a
machine that only emulates bfloat16 the ratios are far below 1.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

import anylatent as al
from anylatent.core.cli.main import main as command

KINDS = ("emoji", "molecule", "text")


def trained(kind, folder):
    run = Path(folder) / kind
    told = ["trainer.accelerator=cpu", "pictures.every=0", "training.diffusion.steps=20"]
    told += ["training.autoencoder.steps=20"]
    command(["train", f"experiment={kind}_cpu", f"run={run}", *told])
    return run


def drawn(model, n, steps):
    """The final latents of n samples, which are decoded as well."""
    found = {}
    model.sample(n, seed=0, steps=steps, callback=lambda i, t, x: found.update(x=x))
    return found["x"]


def compared(run, n, steps=20, turns=5):
    """How many times as fast bfloat16 is, and the relative distance of final latents."""
    models = {kind: al.load(run, device="cpu", precision=kind) for kind in ("32", "bf16")}
    times, latents = {kind: [] for kind in models}, {}
    for turn in range(turns + 1):
        for kind, model in models.items():
            start = time.process_time()
            latents[kind] = drawn(model, n, steps)
            if turn:
                times[kind].append(time.process_time() - start)
    one, other = latents["32"], latents["bf16"]
    far = float(((one - other).dot(one - other).sum() / one.dot(one).sum()).sqrt())
    return statistics.median(times["32"]) / statistics.median(times["bf16"]), far


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", default="")
    parser.add_argument("--n", type=int, default=64)
    options = parser.parse_args()
    given = dict(item.split("=", 1) for item in options.runs.split(",") if item)
    torch.set_num_threads(1)
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            ratios[kind], far = compared(given.get(kind) or trained(kind, folder), options.n)
            print(f"{kind}: {ratios[kind]:.2f} times as fast, latents {far:.2%} apart", flush=True)
    print("ratios", json.dumps(ratios))


if __name__ == "__main__":
    main()
