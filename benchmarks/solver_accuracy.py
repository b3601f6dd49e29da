"""How exact solvers are at equal evaluations: ours beside diffusers', in one run, float64.

    python benchmarks/solver_accuracy.py [--seed 0] [--judge "adams, soft"] [--out OUT.md]

Problems, 20 of each kind, on DDPM's linear and on Stable Diffusion's scaled-linear table:
Gaussians of 7 dimensions with widths log-uniform in .05–3, and mixtures of 2 and of 64 dimensions.
Both sides start at t = 1 with the same x and are judged against the exact flow from there (for
mixtures a fourth-order solution of 1600 steps in log ρ, checked by one of 800). The error is the
root mean square of error / width (Gaussians, from one deviation of noise in each coordinate), or
of error over the spread of the data (mixtures, 16 starts); a table has the median of 20 problems.

diffusers' best is chosen anew for each N and kind of problem among DPM-Solver++ 2M, 3M (midpoint
and heun) and UniPC (orders 2 and 3, bh1 and bh2), each on its default, Karras and log-SNR grids
(`use_lu_lambdas`, `use_exponential_sigmas`), with `lower_order_final` on and off (on for UniPC,
whose matrix is singular otherwise). It has its table of ᾱ and its noise levels in float64. It
tells networks whole timesteps, though it steps along levels between them: "as it is". In "told
exactly" the denoiser is told the level itself, which its interface does not do.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import anylatent as al
from anylatent.core.registry.store import names
from anylatent.core.support.files import save_text

COUNT, STARTS, COMPONENTS = 20, 16, 5
STEPS = (5, 10, 20, 40)
MORE = (80, 160, 320)
BETAS = {"linear": (1e-4, 0.02, 1.0), "scaled_linear": (0.00085, 0.012, 2.0)}
TIMES = 1000  # of a table
END = 30.0  # the log-SNR up to which a reference goes

Denoise = Callable[[al.Latent, Any], al.Latent]


@dataclass
class Problem:
    """COUNT problems of one kind in one batch: rows of problem i follow one another.

    `scale`, shape (COUNT, 1, 1) or (COUNT, 1, D): what errors are measured by.
    """

    name: str
    process: str
    schedule: Any
    denoise: Denoise
    start: al.Latent
    end: al.Latent
    scale: Tensor

    def errors(self, x: al.Latent) -> Tensor:
        """One figure for each problem, (COUNT,); infinite where x is not finite."""
        gap = (x - self.end)["z"].reshape(COUNT, -1, self.end["z"].shape[-1]) / self.scale
        return (gap**2).mean((1, 2)).sqrt().nan_to_num(nan=math.inf)


# ---- problems -----------------------------------------------------------------------------------
def problems(seed: int, processes: tuple[str, ...] = tuple(BETAS)) -> list[Problem]:
    """The three kinds on each process."""
    found = []
    for process in processes:
        start, end, root = BETAS[process]
        schedule = al.get("schedule", "table")(start, end, TIMES, root)
        found.append(gaussians(seed, process, schedule))
        found += [mixtures(seed, process, schedule, dim) for dim in (2, 64)]
    return found


def blank(batch: int, dim: int) -> al.Latent:
    return al.LatentSpec({"z": al.Field((dim,))}).blank(batch, dtype=torch.float64)


def gaussians(seed: int, process: str, schedule: Any, dim: int = 7) -> Problem:
    low, high = math.log(0.05), math.log(3.0)
    widths = (low + (high - low) * al.Noise.of((seed, 1), COUNT).uniform(dim)).exp()
    zeros = blank(COUNT, dim)
    exact = al.testing.GaussianDenoiser(schedule, 0.0, zeros.replace(z=widths))
    start = zeros.replace(z=torch.ones_like(widths) * schedule.sigma(1.0))
    end = exact.flow(start, 1.0, 0.0)
    return Problem("Gaussians", process, schedule, exact, start, end, widths[:, None])


def mixtures(seed: int, process: str, schedule: Any, dim: int) -> Problem:
    """COMPONENTS isotropic components of widths log-uniform in .05–.5, unit spread in all."""
    draws = al.Noise.of((seed, 2, dim), COUNT)
    weights = torch.softmax(draws.normal(COMPONENTS).double(), -1)
    means = draws.normal(COMPONENTS, dim).double()
    widths = 0.05 * 10 ** draws.uniform(COMPONENTS)
    means = means - (weights[..., None] * means).sum(1, keepdim=True)
    spread = (weights[..., None] * (means**2 + widths[..., None] ** 2)).sum(1).mean(-1).sqrt()
    means, widths = means / spread[:, None, None], widths / spread[:, None]
    zeros = blank(COUNT * STARTS, dim)
    start = schedule.sigma(1.0) * al.Noise.of((seed, 3, dim), zeros.batch).like(zeros)
    denoise = Mixtures(schedule, means, widths, weights)
    end = reference(denoise, schedule, start)
    ones = torch.ones(COUNT, 1, 1, dtype=torch.float64)
    return Problem(f"mixtures, {dim}-d", process, schedule, denoise, start, end, ones)


class Mixtures:
    """E[x0 | x_t] for a mixture of its own for each of COUNT problems.

    means (COUNT, K, D); widths and weights (COUNT, K).
    """

    def __init__(self, schedule: Any, means: Tensor, widths: Tensor, weights: Tensor) -> None:
        self.schedule, self.means, self.widths, self.weights = schedule, means, widths, weights
        self.squares = (means**2).sum(-1)

    def __call__(self, x: al.Latent, t: Any) -> al.Latent:
        alpha, sigma = self.schedule.coefficients(torch.as_tensor(t, dtype=torch.float64))
        rows = x["z"].reshape(len(self.means), -1, x["z"].shape[-1])
        total = alpha**2 * self.widths**2 + sigma**2  # (P, K)
        cross = rows @ self.means.mT  # (P, S, K)
        apart = (rows**2).sum(-1, keepdim=True) - 2 * alpha * cross
        apart = apart + (alpha**2 * self.squares)[:, None]
        dim = rows.shape[-1]
        logits = self.weights.log() - 0.5 * dim * total.log()
        posterior = torch.softmax(logits[:, None] - 0.5 * apart / total[:, None], -1)
        gain = alpha * self.widths**2 / total
        x0 = (posterior * gain[:, None]).sum(-1, keepdim=True) * rows
        x0 = x0 + (posterior * (1 - alpha * gain)[:, None]) @ self.means
        return al.Latent({"z": x0.reshape(x["z"].shape)}, {}, x.spec)


def reference(denoise: Denoise, schedule: Any, start: al.Latent, steps: int = 1600) -> al.Latent:
    """The flow by Runge and Kutta's fourth order in u = log ρ, where d(x/alpha)/du = x/alpha - x0.

    None of the solvers that are judged; it ends in x0 at the log-SNR END.
    """
    first = -0.5 * float(schedule.log_snr(1.0))
    grid = torch.linspace(first, -0.5 * END, 2 * steps + 1, dtype=torch.float64)
    times = schedule.time(-2 * grid)
    alphas, h = schedule.alpha(times), float(grid[2] - grid[0])

    def slope(y: al.Latent, i: int) -> al.Latent:
        return y - denoise(alphas[i] * y, times[i])

    y = start / alphas[0]
    for i in range(0, 2 * steps, 2):
        a = slope(y, i)
        b = slope(y + 0.5 * h * a, i + 1)
        c = slope(y + 0.5 * h * b, i + 1)
        d = slope(y + h * c, i + 2)
        y = y + (h / 6) * (a + 2 * b + 2 * c + d)
    return denoise(alphas[-1] * y, times[-1])


# ---- ours ---------------------------------------------------------------------------------------
def errors_of(solver: Any, grid: Any, steps: int, problem: Problem) -> Tensor:
    """The errors of one of our solvers, (COUNT,), which must cost `steps` evaluations."""
    calls = 0

    def counted(x: al.Latent, t: Any) -> al.Latent:
        nonlocal calls
        calls += 1
        return problem.denoise(x, t)

    times = grid(problem.schedule, steps)
    end = al.solve(solver, counted, problem.schedule, problem.start, times)
    if calls != steps:
        raise ValueError(f"{type(solver).__name__}: {calls} evaluations for {steps} steps")
    return problem.errors(end)


def error_of(solver: Any, grid: Any, steps: int, problem: Problem) -> float:
    """Their median."""
    return statistics.median(errors_of(solver, grid, steps, problem).tolist())


def default() -> str:
    """The solver and grid that `anylatent sample` uses where nothing else is said."""
    import yaml

    conf = Path(al.__file__).parent / "conf" / "sample.yaml"
    entries = yaml.safe_load(conf.read_text())["defaults"]
    chosen = {k: v for entry in entries if isinstance(entry, dict) for k, v in entry.items()}
    return f"{chosen['solver']}, {chosen['grid']}"


def ours() -> dict[str, tuple[Any, Any]]:
    """Every deterministic solver of one evaluation a step, on every grid.

    The warped grid is left out: it follows the training loss of a model.
    """
    grids = {name: al.get("grid", name)() for name in names("grid") if name != "warped"}
    solvers = {name: al.get("solver", name)() for name in names("solver")}
    chosen = {n: s for n, s in solvers.items() if not s.stochastic and s.evaluations == 1}
    pairs = itertools.product(chosen.items(), grids.items())
    return {f"{name}, {where}": (solver, grid) for (name, solver), (where, grid) in pairs}


# ---- diffusers ----------------------------------------------------------------------------------
SPACINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "Karras": {"use_karras_sigmas": True},
    "log-SNR": {"use_lu_lambdas": True},
    "exponential": {"use_exponential_sigmas": True},
}


def theirs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, class and settings of each variant."""
    kinds: dict[str, tuple[tuple[str, ...], str]] = {
        "DPMSolverMultistepScheduler": (("midpoint", "heun"), "DPM-Solver++"),
        "UniPCMultistepScheduler": (("bh1", "bh2"), "UniPC"),
    }
    for kind, (types, name) in kinds.items():
        for order, which, final, where in itertools.product((2, 3), types, (True, False), SPACINGS):
            if name == "UniPC" and (where == "log-SNR" or not final):
                continue  # exponential is its name for equal steps of the log-SNR
            settings = {"solver_order": order, "solver_type": which, "lower_order_final": final}
            label = f"{name} {order} {which}, {where}" + ("" if final else ", high order last")
            yield label, kind, settings | SPACINGS[where]


def their_errors(
    kind: str, settings: dict[str, Any], steps: int, p: Problem, exact: bool
) -> Tensor:
    """As `errors_of`, for a scheduler of diffusers; `exact`: the denoiser is told its level."""
    from diffusers import schedulers

    start, end, _ = BETAS[p.process]
    process = {"beta_start": start, "beta_end": end, "beta_schedule": p.process}
    how = {"prediction_type": "sample", "final_sigmas_type": "zero"}
    scheduler = getattr(schedulers, kind)(**process, **how, **settings)
    scheduler.alphas_cumprod = p.schedule.alpha(torch.arange(1, TIMES + 1).double() / TIMES) ** 2
    scheduler.set_timesteps(steps)
    scheduler.sigmas = _double(scheduler, settings, steps)
    if len(scheduler.timesteps) != steps or int(scheduler.timesteps[0]) != TIMES - 1:
        raise ValueError(f"{kind}: {scheduler.timesteps.tolist()} for {steps} evaluations")
    told = scheduler.timesteps.double().add(1).div(TIMES)
    if exact:
        told = p.schedule.time(-2 * scheduler.sigmas[:-1].double().log())
    x = p.start
    for t, k in zip(told, scheduler.timesteps, strict=True):
        x0 = p.denoise(x, t)["z"]
        x = x.replace(z=scheduler.step(x0, k, x["z"], return_dict=False)[0])
    return p.errors(x)


def _double(scheduler: Any, settings: dict[str, Any], steps: int) -> Tensor:
    """Its noise levels without the rounding to float32: the same formulas, on its own table."""
    table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().numpy()
    single = scheduler.sigmas.double()
    if settings.get("use_karras_sigmas"):
        levels = scheduler._convert_to_karras(table[::-1].copy(), steps)
    elif settings.get("use_lu_lambdas") or settings.get("use_exponential_sigmas"):
        levels = scheduler._convert_to_exponential(table[::-1].copy(), steps)
    else:
        levels = table[scheduler.timesteps.numpy()]
    found = torch.cat([torch.as_tensor(levels.copy()), torch.zeros(1)]).double()
    assert torch.allclose(found, single, rtol=1e-6, atol=0), (settings, found, single)
    return found


# ---- the report ---------------------------------------------------------------------------------
def best_of_theirs(problem: Problem, steps: int, exact: bool) -> tuple[float, str]:
    """The least median error of all variants, and which it is."""
    found = []
    for label, kind, settings in theirs():
        errors = their_errors(kind, settings, steps, problem, exact)
        found.append((statistics.median(errors.tolist()), label))
    return min(found)


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def shown(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-3 else f"{value:.1e}"


def report(problem: Problem, chosen: str, summary: list[str]) -> Iterator[str]:
    """The lines of one kind of problem on one process; the summary is about the chosen one."""
    title = f"{problem.name}, {problem.process}"
    yield f"\n### {title}\n"
    yield from header(title, STEPS + MORE)
    bars = {}
    for exact, how in ((False, "as it is"), (True, "told exactly")):
        found = [best_of_theirs(problem, n, exact) for n in STEPS]
        bars[how] = [error for error, _ in found]
        empty = [""] * len(MORE)
        yield line([f"diffusers, best, {how}", *map(shown, bars[how]), *empty])
        yield line(["which", *(label for _, label in found), *empty])
    table, same = {}, dict[tuple[float, ...], list[str]]()
    for name, (solver, grid) in ours().items():
        table[name] = [error_of(solver, grid, n, problem) for n in STEPS + MORE]
        same.setdefault(tuple(table[name]), []).append(name)
    for row, named in sorted(same.items(), key=lambda item: sum(map(math.log, item[0][:4]))):
        mark = "**" if chosen in named else ""
        yield line([f"{mark}{' = '.join(named)}{mark}", *map(shown, row)])
    for how, bar in bars.items() if chosen in table else ():
        ratios = [f"{mine / other:.2f}" for mine, other in zip(table[chosen], bar, strict=False)]
        summary.append(line([f"{title}, {how}", *ratios]))


def header(title: str, steps: tuple[int, ...]) -> list[str]:
    return [line([title, *(f"N = {n}" for n in steps)]), line(["---"] * (1 + len(steps)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judge", default=default(), help="solver and grid; else the default")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    began, lines, summary = time.perf_counter(), list[str](), list[str]()

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    for problem in problems(options.seed):
        for text in report(problem, options.judge, summary):
            say(text)
        if problem.name != "Gaussians":
            coarser = reference(problem.denoise, problem.schedule, problem.start, 800)
            off = problem.errors(coarser).max()
            say(f"\nHalf as many steps move the reference by {off:.0e} at most.")
    if not summary:
        raise SystemExit(f"{options.judge} is not among solvers of one evaluation a step")
    say(f"\n### error of {options.judge} over that of diffusers' best\n")
    for text in [*header("", STEPS), *summary]:
        say(text)
    print(f"\n{time.perf_counter() - began:.0f} s")
    if options.out:
        save_text(options.out, "\n".join(lines).strip() + "\n")


if __name__ == "__main__":
    main()
