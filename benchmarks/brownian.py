"""What a step along a Brownian path costs beside one that draws noise of its own.

    python benchmarks/brownian.py [steps]

Whole solutions by `dpmpp_2m_sde`, whose noise is a path's, beside `euler_ancestral`, which draws as
much noise as a step needs: the denoiser is free, the latent (16, 4, 32, 32) in float32, one thread,
medians of interleaved solutions in processor time. Target: at most 8 times.
"""

import json
import statistics
import sys
import time

import torch

import anylatent as al

SHAPE = (16, 4, 32, 32)
SOLVERS = ("euler_ancestral", "dpmpp_2m_sde")


def solution(name, steps):
    solver, schedule = al.get("solver", name)(), al.get("schedule", "table")()
    spec = al.LatentSpec({"z": al.Field(SHAPE[1:])})
    x = al.Noise.of(0, SHAPE[0]).like(spec.blank(SHAPE[0]))
    x0, times = 0.5 * x, al.get("grid", "log_snr")()(schedule, steps)

    def run():
        noise = al.Noise.of(1, SHAPE[0])
        al.solve(solver, lambda x, t: x0, schedule, x, times, noise)

    return run


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    ratios = {}
    for steps in map(int, sys.argv[1:] or (20, 50)):
        runs = {name: solution(name, steps) for name in SOLVERS}
        found = {name: [] for name in SOLVERS}
        for repeat in range(18):
            for name, run in runs.items():
                start = time.process_time()
                run()
                if repeat >= 3:
                    found[name].append((time.process_time() - start) / steps)
        ancestral, path = (statistics.median(found[name]) for name in SOLVERS)
        ratios[f"{steps} steps"] = path / ancestral
        print(
            f"{steps} steps: {1e3 * ancestral:.2f} ms by euler_ancestral, {1e3 * path:.2f} ms by "
            f"dpmpp_2m_sde, {path / ancestral:.2f} times that",
            flush=True,
        )
    print("ratios", json.dumps(ratios))


if __name__ == "__main__":
    main()
