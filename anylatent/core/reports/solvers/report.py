"""`anylatent benchmark solvers`: the best solver for a trained model, by evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from anylatent.core.generators import schedules_of
from anylatent.core.latents import Condition, Latent, Noise
from anylatent.core.modality import Data
from anylatent.core.process import Grid, LogSNRGrid
from anylatent.core.registry import build
from anylatent.core.reports.evaluation import asked, columns_of, table
from anylatent.core.reports.solvers.comparison import FLOW, LAW, PATH, Comparison, Contest
from anylatent.core.reports.solvers.plot import plot
from anylatent.core.reports.solvers.samples import Prepare, Probe
from anylatent.core.reports.solvers.settings import budgets_of, nodes_of, overrides, solvers_of
from anylatent.core.runs import Computing, Node, Run, blank, solver_of
from anylatent.core.runs.records import measured
from anylatent.core.support.files import UserError, save_text
from anylatent.core.support.progress import bar

TITLES = {
    FLOW: "deterministic: distance from the flow's endpoint",
    PATH: "stochastic, on a Brownian path: distance from the own fine solution on the same path",
    LAW: "stochastic: energy distance of the law from that of the own fine solution",
}


FINE = LogSNRGrid(-14.0, 18.0)
"""Of fine solutions: what they miss at both ends, which halving would not tell, counts for 1e-4."""


@dataclass(frozen=True)
class SolversConfig:
    """What `benchmark solvers` is told. `solver` is that of fine solutions, `reference` their
    evaluations; `solvers` and `grids` are those judged, by default all and the run's own, within
    budgets of `evaluations`. `run_is` names the modality that the run must be of,
    `base` where what it leans on has moved to."""

    run: str
    solver: Node
    guidance: Node | None = None
    run_is: str | None = None
    base: str | None = None
    solvers: Any = None
    grids: Any = None
    evaluations: Any = field(default_factory=lambda: [5, 10, 20, 50])
    reference: int = 200
    n: int = 16
    seed: int = 0
    batch: int = 64
    out: str | None = None
    device: str | None = None


class SolverReport:
    """Compares the registered solvers on a run, and writes solvers.json, .md and .png.

    Errors are medians over samples, in the latents' own scale. Raises UserError for settings that
    make no sense, and for a generator that no solver samples.
    """

    def __init__(self, config: SolversConfig) -> None:
        self.config = config
        self.budgets = budgets_of(config.evaluations, config.reference, config.n, config.batch)
        self.solvers = solvers_of(config.solvers)
        computing = Computing(config.device, "32")  # errors are told that are smaller than others'
        self.run = Run.load(config.run, computing, config.run_is, config.base)
        grids = config.grids or [self.run.config.sampling.grid]
        self.grids = nodes_of("grid", grids, "[soft,log_snr]")
        if not schedules_of(self.run.system.generator):
            raise UserError(
                f"{config.run} has a generator={self.run.config.model.generator['name']}, which "
                "writes samples entry by entry: there is no solver to compare. 'anylatent "
                "benchmark run=...' measures its samples"
            )
        self.folder = Path(config.out or config.run)

    def write(self) -> Comparison:
        """Solves, prints and writes everything."""
        probe, contest = self._probe(), self._contest()
        with bar("solving", probe.batches * contest.steps) as probe.advance:
            found = contest.run(probe)
        text = self._text(found)
        print(text)
        values = {
            **self._how(),
            "solutions": [_plain(asdict(one)) for one in found.solutions],
            "recommended": {
                str(b): overrides(best) for b in self.budgets if (best := found.recommended(b))
            },
            "left_out": found.left_out,
        }
        save_text(self.folder / "solvers.json", json.dumps(values, indent=2) + "\n")
        save_text(self.folder / "solvers.md", f"# solvers on {self.config.run}\n\n{text}\n")
        plot(found, self.budgets, TITLES, self.folder / "solvers.png")
        print(f"\nwritten to {self.folder / 'solvers'}.json, .md and .png")
        return found

    # ---- sampling -----------------------------------------------------------------------------
    def _probe(self) -> Probe:
        config = self.config
        guidance, prepare = self.run.guided(config.guidance), self._prepare(config.n)
        generator = self.run.system.generator
        return Probe(generator, prepare, guidance, config.n, config.batch, config.seed)

    def _contest(self) -> Contest:
        config, context = self.config, self.run.context
        reference = solver_of(config.solver)
        if reference.stochastic:
            raise UserError(
                f"solver={config.solver['name']} draws noise: the reference of the flow needs "
                "a deterministic one, such as solver=heun"
            )
        judged: dict[str, Grid] = {name: context.grid(node) for name, node in self.grids.items()}
        return Contest(self.solvers, judged, self.budgets, reference, FINE, config.reference)

    def _prepare(self, n: int) -> Prepare:
        """Sizes and conditions of the held-out data, each item used in turn."""
        run = self.run
        data = measured(Path(self.config.run), build("data", run.config.data))
        columns = _held_out(run, data, self.config.guidance, n)
        run.check_asked(list(columns), self.config.guidance)

        def prepare(noise: Noise, part: slice) -> tuple[Latent, Condition | None]:
            chosen = {name: values[part] for name, values in columns.items()}
            return blank(run.system, noise, chosen), run.system.condition(chosen)

        return prepare

    # ---- report -------------------------------------------------------------------------------
    def _how(self) -> dict[str, Any]:
        keys = ("n", "seed", "guidance", "solver", "reference")
        return {**{key: getattr(self.config, key) for key in keys}, "grids": list(self.grids)}

    def _text(self, found: Comparison) -> str:
        config = self.config
        scale = (config.guidance or {}).get("scale", "none")
        parts = [
            f"{config.n} samples, seed {config.seed}, grid {' and '.join(self.grids)}, "
            f"guidance {scale}; errors are medians over samples, in units of the latents' root "
            f"mean square. Fine solutions have {config.reference} evaluations, equal steps of "
            f"the log-SNR from {FINE.low:g} to {FINE.high:g}; the flow's is by "
            f"{config.solver['name']}; `doubt` is how far half its steps move one."
        ]
        for against, title in TITLES.items():
            if found.lines(against):
                parts.append(f"{title}\n\n{table(_columns(found, self.budgets, against))}")
        parts += [*_dear(found, max(self.budgets)), recommendation(found, self.budgets)]
        parts += [f"left out: {name}: {reason}" for name, reason in found.left_out.items()]
        return "\n\n".join(parts)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """With null for what is not finite, which JSON has no word for."""
    off = {k for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)}
    return {key: None if key in off else value for key, value in values.items()}


def _held_out(run: Run, data: Data, guidance: Node | None, n: int) -> dict[str, list[Any]]:
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
    """Of those that took more than any budget, as may happen where cost is an outcome."""
    cheapest = {
        label: line[0] for against in TITLES for label, line in found.lines(against).items()
    }
    return [
        f"{label} took {one.evaluations:.0f} evaluations at least, {one.rounds} calls one after "
        f"the other, at an error of {one.error:.2g}"
        for label, one in cheapest.items()
        if one.evaluations > most
    ]


def recommendation(found: Comparison, budgets: Sequence[int]) -> str:
    """The best deterministic solver and grid, and the best on a Brownian path, by budget."""
    lines = []
    for budget in budgets:
        told = [
            f"{start}{overrides(best)} (error {best.error:.2g})"
            for against, start in ((FLOW, ""), (PATH, "with fresh noise "))
            if (best := found.recommended(budget, against))
        ]
        if told:
            lines.append(f"- {budget} evaluations: " + "; ".join(told))
    if not lines:
        return "nothing to recommend: no solution by the flow or on a Brownian path fits a budget"
    last = found.recommended(max(budgets))
    if last is not None and last.doubt > 0.5 * last.error:
        lines.append("\nThe flow's fine solution is in doubt by as much: raise reference=")
    return "recommended for `anylatent sample`\n\n" + "\n".join(lines)
