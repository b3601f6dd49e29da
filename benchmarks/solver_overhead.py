"""What a solver costs besides the network: ours beside diffusers' of the same kind, in one run.

    python benchmarks/solver_overhead.py [steps]

The denoiser is free (it returns a tensor that is already there), the latent (16, 4, 32, 32) in
float32 on one thread, and drawing noise is left out on both sides: the stochastic solvers are
handed a tensor. Both sides run their own loop; medians of interleaved repetitions, in processor
time of the one thread, which other programs hardly change. Target: ours at most half.
"""

import statistics
import sys
import time
import warnings

import torch

import anylatent as al

SHAPE = (16, 4, 32, 32)


class FreeNoise(al.Noise):
    """Hands out one and the same latent."""

    def __init__(self, latent):
        super().__init__([0] * latent.batch)
        self.latent = latent

    def like(self, latent):
        return self.latent


def ours(name, steps):
    """A function that runs one whole solve."""
    schedule = al.get("schedule", "table")()
    times = al.get("grid", "log_snr")()(schedule, steps)
    x = al.LatentSpec({"z": al.Field(SHAPE[1:])}).blank(SHAPE[0])
    x = x.map(torch.randn_like)
    x0, noise, solver = 0.5 * x, FreeNoise(x), al.get("solver", name)()
    return lambda: al.solve(solver, lambda x, t: x0, schedule, x, times, noise)


def theirs(name, steps):
    """The same for diffusers: scaled-linear βs, prediction of the data where it is offered."""
    from diffusers import schedulers
    from diffusers.schedulers import scheduling_ddim, scheduling_ddpm
    from diffusers.schedulers import scheduling_euler_discrete as euler

    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    kinds = {
        "euler": schedulers.EulerDiscreteScheduler,
        "heun": schedulers.HeunDiscreteScheduler,
        "ddim": schedulers.DDIMScheduler,
        "ddpm": schedulers.DDPMScheduler,
        "dpmpp_2m": schedulers.DPMSolverMultistepScheduler,
    }
    kind = "epsilon" if name == "heun" else "sample"
    clip = {"clip_sample": False} if name in ("ddim", "ddpm") else {}
    scheduler = kinds[name](**betas, prediction_type=kind, **clip)
    x = torch.randn(SHAPE)
    output = 0.5 * x
    for module in (scheduling_ddim, scheduling_ddpm, euler):
        if hasattr(module, "randn_tensor"):
            module.randn_tensor = lambda *args, **kwargs: x

    def run():
        scheduler.set_timesteps(steps)
        state = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scheduler.scale_model_input(state, t)
            state = scheduler.step(output, t, state, return_dict=False)[0]

    return run


def measure(pair, steps, repeats=25):
    """Median microseconds per step of each function, interleaved."""
    found = [[] for _ in pair]
    for repeat in range(repeats + 3):
        for function, times in zip(pair, found, strict=True):
            start = time.process_time()
            function()
            if repeat >= 3:
                times.append((time.process_time() - start) / steps * 1e6)
    return [statistics.median(times) for times in found]


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    print(f"latent {SHAPE}, float32, {steps} steps, microseconds per step")
    print(f"{'solver':<10}{'ours':>8}{'diffusers':>12}{'ratio':>8}")
    for name in ("euler", "ddim", "ddpm", "dpmpp_2m", "heun"):
        with torch.no_grad():
            mine, other = measure((ours(name, steps), theirs(name, steps)), steps)
        print(f"{name:<10}{mine:>8.0f}{other:>12.0f}{mine / other:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
