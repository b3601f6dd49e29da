"""What a solver costs besides the network: ours beside diffusers' of the same kind, in one run.

    python benchmarks/solver_overhead.py [steps] [--only euler,heun]

Time: the denoiser is free (it returns a tensor that is already there), the latent (16, 4, 32, 32)
in float32 on one thread, and drawing noise is left out on both sides: the stochastic solvers are
handed a tensor. Both sides run their own loop, setting up included; medians of interleaved
repetitions, in processor time of the one thread, which other programs hardly change. Ours take as
many steps as diffusers' evaluations allow; times are per evaluation. Target: at most half.

Memory: how many latents there are in all after a step and while the denoiser works, counted among
all living tensors. Target: after a step at most order + 1. Noise is left out, which keeps one more
where it is a Brownian path.
"""

import argparse
import gc
import json
import math
import statistics
import time
import warnings
from importlib import import_module

import torch

import anylatent as al
from anylatent.core.reports.solvers.comparison import steps_within

SHAPE = (16, 4, 32, 32)
MULTI, SINGLE = "DPMSolverMultistep", "DPMSolverSinglestep"
NOISE = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
SDE = {"algorithm_type": "sde-dpmsolver++"}

# ours, our settings, diffusers' class, its settings
PAIRS = [
    ("euler", {}, "EulerDiscrete", {}),
    ("euler_ancestral", {}, "EulerAncestralDiscrete", {"prediction_type": "epsilon"}),
    ("ddim", {}, "DDIM", {"clip_sample": False}),
    ("ddpm", {}, "DDPM", {"clip_sample": False}),
    ("ddpm", {"variance": "large"}, "DDPM", {"clip_sample": False, "variance_type": "fixed_large"}),
    ("heun", {}, "HeunDiscrete", {"prediction_type": "epsilon"}),
    ("dpmpp_2m", {}, MULTI, {}),
    ("dpmpp_3m", {}, MULTI, {"solver_order": 3}),
    ("dpmpp_2m_sde", {}, MULTI, SDE),
    ("dpmpp_3m_sde", {}, MULTI, {"solver_order": 3, **SDE}),
    ("dpmpp_2s", {}, SINGLE, {"solver_order": 2}),
    ("dpm_solver", {"order": 2}, SINGLE, {"solver_order": 2, **NOISE}),
    ("dpm_solver", {"order": 3}, SINGLE, {"solver_order": 3, **NOISE}),
    ("dpm_solver_m", {"order": 2}, MULTI, {"solver_order": 2, **NOISE}),
    ("dpm_solver_m", {"order": 3}, MULTI, {"solver_order": 3, **NOISE}),
    ("unipc", {"order": 2}, "UniPCMultistep", {"solver_order": 2}),
    ("unipc", {"order": 3}, "UniPCMultistep", {"solver_order": 3}),
    ("deis", {"order": 2}, "DEISMultistep", {"solver_order": 2}),
    ("deis", {"order": 3}, "DEISMultistep", {"solver_order": 3}),
    ("adams", {"order": 3}, MULTI, {"solver_order": 3}),
    ("plms", {}, "PNDM", {"skip_prk_steps": True, "prediction_type": "epsilon"}),
    ("pndm", {}, "PNDM", {"prediction_type": "epsilon"}),
]


class FreePath:
    """Hands out one and the same latent."""

    def __init__(self, latent):
        self.latent = latent

    def between(self, before, after):
        return self.latent


class FreeNoise(al.Noise):
    """The same."""

    def __init__(self, latent):
        super().__init__([0] * latent.batch)
        self.latent = latent

    def like(self, latent):
        return self.latent

    def path(self, latent, rate=1.0):
        return FreePath(self.latent)


# ---- time ---------------------------------------------------------------------------------------
def ours(solver, budget):
    """A function that runs one whole solve within so many evaluations, and how many it takes."""
    schedule, steps = al.get("schedule", "table")(), steps_within(solver, budget)
    x = al.LatentSpec({"z": al.Field(SHAPE[1:])}).blank(SHAPE[0]).map(torch.randn_like)
    x0, noise, grid = 0.5 * x, FreeNoise(x), al.get("grid", "log_snr")()

    def run():
        times = grid(schedule, steps)
        return al.solve(solver, lambda x, t: x0, schedule, x, times, noise)

    return run, solver.cost(steps)


def theirs(kind, settings, steps):
    """The same for diffusers: scaled-linear βs, prediction of the data where it is offered."""
    from diffusers import schedulers

    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    chosen = getattr(schedulers, f"{kind}Scheduler")
    scheduler = chosen(**{**betas, "prediction_type": "sample", **settings})
    x = torch.randn(SHAPE)
    output, module = 0.5 * x, import_module(chosen.__module__)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = lambda *args, **kwargs: x
    scheduler.set_timesteps(steps)

    def run():
        scheduler.set_timesteps(steps)
        state = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scheduler.scale_model_input(state, t)
            state = scheduler.step(output, t, state, return_dict=False)[0]

    return run, len(scheduler.timesteps)


def measure(pair, repeats=25):
    """Median microseconds per evaluation of each (function, evaluations), interleaved."""
    found = [[] for _ in pair]
    for repeat in range(repeats + 3):
        for (function, evaluations), times in zip(pair, found, strict=True):
            start = time.process_time()
            function()
            if repeat >= 3:
                times.append((time.process_time() - start) / evaluations * 1e6)
    return [statistics.median(times) for times in found]


# ---- memory -------------------------------------------------------------------------------------
def living(shape):
    """How many batches of latents of this shape there are, in tensors of any batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated attributes, looked at in passing
        found = [x for x in gc.get_objects() if type(x) is torch.Tensor and x.ndim == len(shape)]
    rows = {x.data_ptr(): len(x) for x in found if x.shape[1:] == shape[1:]}
    return math.ceil(sum(rows.values()) / shape[0])


def kept(solver, steps=8):
    """The most latents after a step, and while the denoiser works, with x but without noise."""
    shape = (3, 5, 7)
    spec, schedule = al.LatentSpec({"z": al.Field(shape[1:])}), al.get("schedule", "vp")()
    noise = FreeNoise(al.Noise(range(3)).like(spec.blank(3)))
    start = schedule.sigma(1.0) * noise.latent
    others, after, during = living(shape), [], []  # the start outlives all

    class Watching(al.testing.GaussianDenoiser):  # of which windows and some samples may be asked
        def forward(self, x, t, cond=None):
            during.append(living(shape) - others)
            return super().forward(x, t, cond)

        def select(self, index):
            return self

    denoise = Watching(schedule, 0.0, 0.5).bind(None)

    def note(index, t, x):
        after.append(living(shape) - others)

    times = al.get("grid", "log_snr")()(schedule, steps)
    al.solve(solver, denoise, schedule, start, times, noise, note)
    return max(after), max(during)


# ---- the report ---------------------------------------------------------------------------------
def label(name, settings):
    return " ".join([name, *map(str, settings.values())])


def report_time(pairs, steps):
    print(f"latent {SHAPE}, float32, {steps} steps of diffusers, microseconds per evaluation\n")
    print(f"| {'solver':<17}| ours | diffusers | ratio |\n| --- | --- | --- | --- |")
    ratios = {}
    for name, mine, kind, other in pairs:
        rival = theirs(kind, other, steps)
        pair = ours(al.get("solver", name)(**mine), rival[1]), rival
        with torch.no_grad():
            own, peer = measure(pair)
        ratios[label(name, mine)] = own / peer
        print(f"| {label(name, mine):<17}| {own:.0f} | {peer:.0f} | {own / peer:.2f} |", flush=True)
    worst = max(ratios, key=ratios.get)
    middle = statistics.median(ratios.values())
    print(f"\nmedian ratio {middle:.2f}, the worst {worst}\n")
    return {**ratios, "median": middle, "worst": ratios[worst]}


def report_memory(names):
    print(
        "| solver | order | latents after a step | while the denoiser works |\n"
        + "| --- " * 4
        + "|"
    )
    for name in names:
        solver = al.get("solver", name)()
        with torch.no_grad():
            after, during = kept(solver)
        more = "" if after <= solver.order + 1 else " (more than order + 1)"
        print(f"| {name} | {solver.order} | {after}{more} | {during} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("steps", nargs="?", type=int, default=50)
    parser.add_argument("--only", help="names of ours, separated by commas")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    names = options.only.split(",") if options.only else al.names("solver")
    ratios = report_time([pair for pair in PAIRS if pair[0] in names], options.steps)
    report_memory(names)
    print("ratios", json.dumps(ratios))


if __name__ == "__main__":
    main()
