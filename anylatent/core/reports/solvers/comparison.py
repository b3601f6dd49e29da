"""How near solvers come, at equal cost, to what they converge to: on any generator, any latent.

Every solution starts from the same noise. One of a deterministic solver is held against the flow's
own endpoint; one of a solver that draws from a Brownian path against its own fine solution on the
same path; one of another stochastic solver against the law of its fine solution. None of them
depends on the grid that is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from anylatent.core.process import Grid
from anylatent.core.reports.solvers.samples import Samples
from anylatent.core.solvers import Adaptive, Solver
from anylatent.core.support.files import UserError

FLOW, PATH, LAW = "flow", "path", "law"
"""What an error is measured against; see this module."""

REFUSALS = ValueError, UserError, RuntimeError
"""Of a process, of a setting, of a tolerance that is out of reach."""


class Sample(Protocol):
    """Solves with a solver in so many steps of a grid, from one and the same noise."""

    def __call__(self, solver: Solver, grid: Grid, steps: int) -> Samples: ...

    def reach(self, steps: int) -> None:
        """Takes the progress to so many steps in all, where some were not needed."""


@dataclass(frozen=True)
class Yardstick:
    """A fine solution, and how far half its steps move it, which is how far it may be off."""

    wanted: Samples
    against: str
    doubt: float

    @classmethod
    def of(cls, sample: Sample, solver: Solver, grid: Grid, most: int) -> Yardstick:
        """By a solver at the most evaluations; of a law, no finer than n samples tell one."""
        wanted, halved = (sample(solver, grid, steps) for steps in fine_steps(solver, most))
        against = FLOW if not solver.stochastic else PATH if wanted.path else LAW
        doubt, _ = cls(wanted, against, 0.0).judge(halved)
        return cls(wanted, against, max(doubt, wanted.floor() if against == LAW else 0.0))

    def judge(self, found: Samples) -> tuple[float, float]:
        """The median error of a sample, and what one in ten exceeds; of a law there is one."""
        if self.against == LAW:
            return (found.apart(self.wanted),) * 2
        errors = found.errors(self.wanted)
        middle, worst = errors.quantile(errors.new_tensor([0.5, 0.9]), interpolation="higher")
        return float(middle), float(worst)


@dataclass(frozen=True)
class Solution:
    """One solver on one grid at one number of steps: its cost, and the median error of a sample.

    A solver that chooses its own steps has a tolerance instead of a grid. `worst` is the error that
    one sample in ten exceeds, `doubt` how far that which it is held against may be off.
    """

    solver: str
    grid: str | None
    steps: int
    tolerance: float | None
    evaluations: float
    rounds: int
    against: str
    error: float
    worst: float
    doubt: float


@dataclass
class Comparison:
    """All solutions, on `several` grids or on one; `left_out`: why there are no more, by label."""

    solutions: list[Solution] = field(default_factory=list)
    several: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    def label(self, solver: str, grid: str | None) -> str:
        """The solver's name, and the grid's where there are several."""
        return f"{solver}, {grid}" if self.several and grid else solver

    def lines(self, against: str) -> dict[str, list[Solution]]:
        """The solutions under each label, the cheapest first."""
        found: dict[str, list[Solution]] = {}
        for one in self.solutions:
            if one.against == against:
                found.setdefault(self.label(one.solver, one.grid), []).append(one)
        return {
            label: sorted(line, key=lambda one: one.evaluations) for label, line in found.items()
        }

    def within(self, budget: int, against: str = FLOW) -> dict[str, Solution]:
        """The dearest solution under each label that costs no more than the budget."""
        return {
            label: [one for one in line if one.evaluations <= budget][-1]
            for label, line in self.lines(against).items()
            if line[0].evaluations <= budget
        }

    def recommended(self, budget: int, against: str = FLOW) -> Solution | None:
        """The least error, whatever the solver, that costs no more than the budget."""
        allowed = (
            one for one in self.solutions if one.against == against and one.evaluations <= budget
        )
        return min(allowed, key=lambda one: one.error, default=None)


@dataclass(frozen=True)
class Contest:
    """Solvers on grids at budgets of evaluations, and the fine solutions that judge them.

    `solvers`: one for each name or, of a kind that chooses its own steps and needs no grid, one for
    each tolerance, the loosest first. `reference` is deterministic and finds the flow's endpoint.
    Fine solutions are on `grid`, of `most` evaluations.
    """

    solvers: Mapping[str, Sequence[Solver]]
    grids: Mapping[str, Grid]
    budgets: Sequence[int]
    reference: Solver
    grid: Grid
    most: int

    @property
    def steps(self) -> int:
        """How many it takes, for its progress."""
        return self._fine(self.reference) + sum(map(self._planned, self.solvers.values()))

    def run(self, sample: Sample) -> Comparison:
        """Every solver on every grid at every budget, but those that refuse it or cost too much."""
        flow = Yardstick.of(sample, self.reference, self.grid, self.most)
        result, done = Comparison(several=len(self.grids) > 1), self._fine(self.reference)
        for name, (solver, *_) in self.solvers.items():
            yardstick = None if solver.stochastic else flow
            for grid in self._names(solver):
                try:
                    self._check(solver)
                    yardstick = yardstick or self._own(sample, solver)
                    for solution in self._climb(sample, name, grid, yardstick):
                        result.solutions.append(solution)
                except REFUSALS as error:
                    result.left_out[result.label(name, grid)] = str(error)
            done += self._planned(self.solvers[name])
            sample.reach(done)
        return result

    def _climb(
        self, sample: Sample, name: str, grid: str | None, yardstick: Yardstick
    ) -> Iterator[Solution]:
        """At rising cost, until one costs more than any budget."""
        points = self.grid if grid is None else self.grids[grid]
        for solver, steps in self._rungs(self.solvers[name]):
            found = sample(solver, points, steps)
            how = steps, solver.tolerance if grid is None else None
            cost, errors = (found.evaluations, found.rounds), yardstick.judge(found)
            yield Solution(name, grid, *how, *cost, yardstick.against, *errors, yardstick.doubt)
            if found.evaluations > max(self.budgets):
                return

    def _check(self, solver: Solver) -> None:
        if not steps_within(solver, max(self.budgets)):
            raise ValueError(f"one step costs {solver.cost(1)} evaluations")

    def _own(self, sample: Sample, solver: Solver) -> Yardstick:
        return Yardstick.of(sample, solver, self.grid, self.most)

    def _names(self, solver: Solver) -> list[str | None]:
        """Of the grids that a solver is tried on."""
        return [None] if isinstance(solver, Adaptive) else list(self.grids)

    def _rungs(self, solvers: Sequence[Solver]) -> list[tuple[Solver, int]]:
        """Solvers and steps, at rising cost."""
        if isinstance(solvers[0], Adaptive):
            return [(solver, 1) for solver in solvers]
        steps = {steps_within(solvers[0], budget) for budget in self.budgets} - {0}
        return [(solvers[0], n) for n in sorted(steps)]

    def _planned(self, solvers: Sequence[Solver]) -> int:
        own = self._fine(solvers[0]) if solvers[0].stochastic else 0
        return own + len(self._names(solvers[0])) * sum(n for _, n in self._rungs(solvers))

    def _fine(self, solver: Solver) -> int:
        return sum(fine_steps(solver, self.most))


def steps_within(solver: Solver, budget: int) -> int:
    """The most steps that cost no more evaluations than the budget; 0 if one costs more."""
    fitting = (steps for steps in range(budget, 0, -1) if solver.cost(steps) <= budget)
    return next(fitting, 0)


def fine_steps(solver: Solver, most: int) -> tuple[int, int]:
    """Of a fine solution at so many evaluations, and of that with half as many steps."""
    steps = max(1, steps_within(solver, most))
    return steps, max(1, steps // 2)
