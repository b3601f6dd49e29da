"""Quality against the number of steps, for several solvers on one trained model of any modality.

    python benchmarks/trained/quality_by_steps.py runs/smiles --figures valid,evaluator_nll \\
        --solvers ddpm,heun,dpmpp_2m --steps 5,10,20,50,200 --n 300 --out steps

Prints a table of each figure of `anylatent evaluate` that is named, and writes OUT.md and OUT.png,
plotted against evaluations of the network, of which Heun's method takes two a step.
"""

import argparse
import time
from pathlib import Path

import anylatent as al
from anylatent.core.registry.building import build
from anylatent.core.support.files import replacing, save_text


class Counted:
    """A guidance that only counts evaluations."""

    def __init__(self, run):
        self.calls = 0
        run.system.generator.denoiser.register_forward_hook(self._count)

    def _count(self, *_):
        self.calls += 1


def measured(run, metrics, counted, solver, steps, options):
    counted.calls, start = 0, time.perf_counter()
    outputs = run.sample(options.n, options.seed, solver=solver, steps=steps, batch=options.batch)
    batches = -(-options.n // options.batch)
    row = metrics.samples(outputs, {})
    return {**row, "evaluations": counted.calls / batches, "seconds": time.perf_counter() - start}


def table(name, rows, solvers, steps):
    lines = [f"| {name} | " + " | ".join(f"{n} steps" for n in steps) + " |"]
    lines.append("| --- " * (len(steps) + 1) + "|")
    for solver in solvers:
        cells = (f"{rows[solver, n].get(name, float('nan')):.3f}" for n in steps)
        lines.append(f"| {solver} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(path, figures, rows, solvers, steps):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(figures), figsize=(4.6 * len(figures), 3.4), squeeze=False)
    for axis, name in zip(axes[0], figures, strict=True):
        for solver in solvers:
            found = [rows[solver, n] for n in steps]
            x = [row["evaluations"] for row in found]
            axis.plot(x, [row.get(name, float("nan")) for row in found], "o-", label=solver)
        axis.set(xscale="log", xlabel="evaluations of the network", title=name)
        axis.grid(alpha=0.3)
    axes[0][0].legend()
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--figures", required=True)
    parser.add_argument("--solvers", default="ddpm,heun,dpmpp_2m")
    parser.add_argument("--steps", default="5,10,20,50,200")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--batch", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("steps"))
    options = parser.parse_args()
    solvers, figures = options.solvers.split(","), options.figures.split(",")
    steps = [int(n) for n in options.steps.split(",")]
    run = al.load(options.run)
    metrics = al.Metrics.of(run.system.modality, build("data", run.config.data))
    counted, rows = Counted(run), {}
    for solver in solvers:
        for n in steps:
            rows[solver, n] = measured(run, metrics, counted, solver, n, options)
            shown = ", ".join(f"{name} {rows[solver, n].get(name, 0):.3f}" for name in figures)
            print(f"{solver} {n}: {shown}, {rows[solver, n]['seconds']:.0f} s", flush=True)
    text = "\n\n".join(table(name, rows, solvers, steps) for name in figures)
    print(text)
    save_text(options.out.with_suffix(".md"), text + "\n")
    plot(options.out.with_suffix(".png"), figures, rows, solvers, steps)


if __name__ == "__main__":
    main()
