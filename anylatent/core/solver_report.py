"""`anylatent benchmark solvers`: the best solver for a trained model, by evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anylatent.core.condition import Condition
from anylatent.core.evaluation import asked, columns_of, table
from anylatent.core.files import UserError, replacing, save_text
from anylatent.core.latent import Latent
from anylatent.core.modality import Data
from anylatent.core.noise import Noise
from anylatent.core.progress import bar
from anylatent.core.registry import build, names
from anylatent.core.run import Run
from anylatent.core.solver_comparison import (
    FLOW,
    LAW,
    PATH,
    Comparison,
    Solution,
    compare,
    planned_steps,
)
from anylatent.core.solver_samples import Prepare, Sampler
from anylatent.core.solvers import Solver
from anylatent.core.system import Config, sampling_parts

LEAST = 1e-9
"""The least error that is drawn."""

TITLES = {
    FLOW: "deterministic: distance from the flow's endpoint",
    PATH: "stochastic, on a Brownian path: distance from the own fine solution on the same path",
    LAW: "stochastic: energy distance of the law from that of the own fine solution",
}


class SolverReport:
    """Compares the registered solvers on a run, and writes solvers.json, .md and .png.

    Errors are medians over samples, in the latents' own scale. Raises UserError for settings that
    make no sense, and for a generator that no solver samples.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.budgets, self.solvers = _budgets(config), _solvers(config["solvers"])
        self.run = Run.load(config["run"], config["device"], config["run_is"])
        if self.run.system.generator.ends:
            raise UserError(
                f"{config['run']} has a generator={self.run.config['generator']['name']}, which "
                "writes samples entry by entry: there is no solver to compare. 'anylatent "
                "benchmark run=...' measures its samples"
            )
        self.folder = Path(config["out"] or config["run"])

    def write(self) -> Comparison:
        """Solves, prints and writes everything."""
        sampler, reference = self._sampler()
        most, batches = self.config["reference"], -(-sampler.n // sampler.batch)
        steps = planned_steps(self.solvers, self.budgets, reference, most)
        with bar("solving", batches * steps) as sampler.advance:
            found = compare(sampler, self.solvers, self.budgets, reference, most)
        text = self._text(found)
        print(text)
        values = {
            **self._how(),
            "solutions": [_plain(asdict(one)) for one in found.solutions],
            "recommended": {
                str(b): best.solver for b in self.budgets if (best := found.recommended(b))
            },
            "left_out": found.left_out,
        }
        save_text(self.folder / "solvers.json", json.dumps(values, indent=2) + "\n")
        save_text(self.folder / "solvers.md", f"# solvers on {self.config['run']}\n\n{text}\n")
        plot(found, self.budgets, self.folder / "solvers.png")
        print(f"\nwritten to {self.folder / 'solvers'}.json, .md and .png")
        return found

    # ---- sampling -----------------------------------------------------------------------------
    def _sampler(self) -> tuple[Sampler, Solver]:
        """What solves, and the solver of its references."""
        config, system = self.config, self.run.system
        reference, grid, _ = sampling_parts(config, system.generator.times)
        guidance = self.run.guided(config["guidance"])
        if reference.stochastic:
            raise UserError(
                f"solver={config['solver']['name']} draws noise: the reference of the flow needs "
                "a deterministic one, such as solver=heun"
            )
        n, batch, seed = config["n"], config["batch"], config["seed"]
        prepare = self._prepare(n)
        return Sampler(system.generator, prepare, grid, guidance, n, batch, seed), reference

    def _prepare(self, n: int) -> Prepare:
        """Sizes and conditions of the held-out data, each item used in turn."""
        run, data = self.run, build("data", self.run.config["data"])
        columns = _held_out(run, data, self.config["guidance"], n)
        run.check_asked(list(columns), self.config["guidance"])

        def prepare(noise: Noise, part: slice) -> tuple[Latent, Condition | None]:
            chosen = {name: values[part] for name, values in columns.items()}
            return run.system.blank(noise, chosen), run.system.condition(chosen)

        return prepare

    # ---- report -------------------------------------------------------------------------------
    def _how(self) -> dict[str, Any]:
        keys = ("n", "seed", "grid", "guidance", "solver", "reference")
        return {key: self.config[key] for key in keys}

    def _text(self, found: Comparison) -> str:
        config = self.config
        scale = (config["guidance"] or {}).get("scale", "none")
        parts = [
            f"{config['n']} samples, seed {config['seed']}, grid {config['grid']['name']}, "
            f"guidance {scale}; errors are medians over samples, in units of the latents' root "
            f"mean square. Fine solutions have {config['reference']} evaluations, the flow's is by "
            f"{config['solver']['name']}; `doubt` is how far one may be off itself."
        ]
        for against, title in TITLES.items():
            if found.of(against):
                parts.append(f"{title}\n\n{table(_columns(found, self.budgets, against))}")
        parts += [
            *_dear(found, max(self.budgets)),
            recommendation(found, self.budgets, config["grid"]["name"]),
        ]
        parts += [f"left out: {name}: {reason}" for name, reason in found.left_out.items()]
        return "\n\n".join(parts)


def _budgets(config: Config) -> list[int]:
    """The evaluations that are asked for, rising; checks the other numbers as well."""
    given = config["evaluations"]
    budgets = given if isinstance(given, list) else [given]
    if not budgets or not all(type(b) is int and b > 0 for b in budgets):
        raise UserError(f"evaluations={given}: whole numbers above 0, such as [5,10,20,50]")
    if config["reference"] < 2 * max(budgets):
        raise UserError(
            f"reference={config['reference']}: it needs at least twice the {max(budgets)} "
            "evaluations that are judged by it"
        )
    if config["n"] < 4:
        raise UserError(f"n={config['n']}: a comparison needs at least four samples")
    if config["batch"] < 1:
        raise UserError(f"batch={config['batch']}: at least one sample at a time")
    return sorted(set(budgets))


def _solvers(given: Any) -> dict[str, Solver]:
    """All solvers, or those that are named, with their defaults or the settings given."""
    wanted = names("solver") if given is None else [given] if isinstance(given, str) else given
    if not isinstance(wanted, list) or not wanted:
        raise UserError(
            f"solvers={given}: names of solvers, such as [heun,ddim], or with settings, such as "
            "[{name:ddim,eta:0.5}]"
        )
    nodes = [{"name": one} if isinstance(one, str) else one for one in wanted]
    solvers = [build("solver", node) for node in nodes]
    return dict(zip(map(_label, nodes), solvers, strict=True))


def _label(node: Config) -> str:
    return " ".join([node["name"], *(f"{k}={v}" for k, v in node.items() if k != "name")])


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """With null for what is not finite, which JSON has no word for."""
    off = {k for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)}
    return {key: None if key in off else value for key, value in values.items()}


def _held_out(run: Run, data: Data, guidance: Config | None, n: int) -> dict[str, list[Any]]:
    dataset: Any = data.held_out()
    items = [dataset[i] for i in range(min(n, len(dataset)))]
    return columns_of(items, asked(run, guidance), n)


def _columns(
    found: Comparison, budgets: Sequence[int], against: str
) -> dict[str, dict[str, float | None]]:
    """Errors by solver for each budget, the best at the last budget first."""
    within = {budget: found.within(budget, against) for budget in budgets}
    last = within[max(budgets)]
    order = sorted(last, key=lambda name: last[name].error)
    errors: dict[str, dict[str, float | None]] = {
        f"{budget} evaluations": {n: row[n].error if n in row else None for n in order}
        for budget, row in within.items()
    }
    return {**errors, "doubt": {name: last[name].doubt for name in order}}


def _dear(found: Comparison, most: int) -> list[str]:
    """Solvers that took more than any budget, as those do that choose their steps themselves."""
    cheapest: dict[str, Solution] = {}
    for one in sorted(found.solutions, key=lambda one: -one.evaluations):
        cheapest[one.solver] = one
    return [
        f"{one.solver} took {one.evaluations:.0f} evaluations at least, {one.rounds} calls one "
        f"after the other, at an error of {one.error:.2g}"
        for one in cheapest.values()
        if one.evaluations > most
    ]


def recommendation(found: Comparison, budgets: Sequence[int], grid: str) -> str:
    """The best deterministic solver, and the best on a Brownian path, for each budget."""
    lines = []
    for budget in budgets:
        told = []
        for against in (FLOW, PATH):
            best = found.recommended(budget, against)
            if best is not None:
                told.append(f"solver={best.solver} steps={best.steps} (error {best.error:.2g})")
        if told:
            lines.append(f"- {budget} evaluations: " + "; with fresh noise ".join(told))
    last = found.recommended(max(budgets))
    if last is not None and last.doubt > 0.5 * last.error:
        lines.append("\nThe flow's fine solution is in doubt by as much: raise reference=")
    return f"recommended, with grid={grid}\n\n" + "\n".join(lines)


def plot(found: Comparison, budgets: Sequence[int], path: Path) -> None:
    """Errors against evaluations, a panel for each kind; what is in doubt is drawn no lower."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = [against for against in TITLES if found.of(against)]
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(6 * len(kinds), 4.5), squeeze=False)
    for axis, against in zip(axes[0], kinds, strict=True):
        solutions = found.of(against)
        for k, name in enumerate(dict.fromkeys(one.solver for one in solutions)):
            line = [s for s in solutions if s.solver == name and math.isfinite(s.error)]
            style = "o-" if k < 10 else "s--"  # there are ten colours
            errors = [max(s.error, s.doubt, LEAST) for s in line]
            axis.plot([s.evaluations for s in line], errors, style, label=name)
        if against == FLOW:
            doubt = max(solutions[0].doubt, LEAST)
            axis.axhline(doubt, color="grey", linestyle=":", label="doubt")
        axis.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="median error")
        axis.set_xticks(budgets, [str(budget) for budget in budgets])
        axis.set_xticks([], minor=True)
        axis.set_title(TITLES[against].replace(": ", "\n", 1), fontsize=9)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)
