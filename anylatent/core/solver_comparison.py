"""How near solvers come, at equal cost, to what they converge to: on any generator, any latent.

Every solution starts from the same noise. One of a deterministic solver is held against the flow's
own endpoint; one of a solver that draws from a Brownian path against its own fine solution on the
same path; one of another stochastic solver against the law of its fine solution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from anylatent.core.files import UserError
from anylatent.core.solver_samples import Samples
from anylatent.core.solvers import Solver

FLOW, PATH, LAW = "flow", "path", "law"
"""What an error is measured against; see this module."""

Sample: TypeAlias = Callable[[Solver, int], Samples]
"""Solves with a solver in so many steps, from one and the same noise."""


@dataclass(frozen=True)
class Yardstick:
    """A fine solution, and how far it may be off itself: as far as half its steps move it."""

    wanted: Samples
    against: str
    doubt: float

    @classmethod
    def of(cls, sample: Sample, solver: Solver, most: int) -> Yardstick:
        """By a solver at the most evaluations; of a law, no finer than n samples tell one."""
        fine = steps_within(solver, most)
        wanted, halved = sample(solver, fine), sample(solver, max(1, fine // 2))
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
    """One solver at one number of steps: its cost, and the median error of a sample.

    `worst` is the error that one sample in ten exceeds, `doubt` how far that which it is held
    against may be off.
    """

    solver: str
    steps: int
    evaluations: float
    rounds: int
    against: str
    error: float
    worst: float
    doubt: float


@dataclass
class Comparison:
    """All solutions; `left_out`: why a solver has no more of them, by name."""

    solutions: list[Solution] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def of(self, against: str) -> list[Solution]:
        return [one for one in self.solutions if one.against == against]

    def within(self, budget: int, against: str = FLOW) -> dict[str, Solution]:
        """Each solver's dearest solution that costs no more than the budget."""
        found: dict[str, Solution] = {}
        for one in sorted(self.of(against), key=lambda one: one.evaluations):
            if one.evaluations <= budget:
                found[one.solver] = one
        return found

    def recommended(self, budget: int, against: str = FLOW) -> Solution | None:
        """The least error, whatever the solver, that costs no more than the budget."""
        allowed = [one for one in self.of(against) if one.evaluations <= budget]
        return min(allowed, key=lambda one: one.error, default=None)


def steps_within(solver: Solver, budget: int) -> int:
    """The most steps that cost no more evaluations than the budget; 0 if one costs more."""
    fitting = (steps for steps in range(budget, 0, -1) if solver.cost(steps) <= budget)
    return next(fitting, 0)


def planned_steps(
    solvers: Mapping[str, Solver], budgets: Sequence[int], reference: Solver, most: int
) -> int:
    """How many steps a comparison takes, for its progress."""
    each = (steps_within(s, b) for s in solvers.values() for b in budgets)
    yardsticks = [reference, *(solver for solver in solvers.values() if solver.stochastic)]
    fine = (steps_within(solver, most) for solver in yardsticks)
    return sum(each) + sum(steps + max(1, steps // 2) for steps in fine)


def compare(
    sample: Sample,
    solvers: Mapping[str, Solver],
    budgets: Sequence[int],
    reference: Solver,
    most: int,
) -> Comparison:
    """Every solver at every budget of evaluations; fine solutions have `most`.

    `reference` is deterministic, and finds the flow's endpoint. A solver that refuses the process,
    or needs more evaluations for one step than any budget, is left out.
    """
    flow, result = Yardstick.of(sample, reference, most), Comparison()
    for name, solver in solvers.items():
        try:
            if steps_within(solver, max(budgets)) == 0:
                raise ValueError(f"one step costs {solver.cost(1)} evaluations")
            yardstick = Yardstick.of(sample, solver, most) if solver.stochastic else flow
            result.solutions += _solutions(sample, name, solver, budgets, yardstick)
        except (ValueError, UserError) as error:
            result.left_out[name] = str(error)
    return result


def _solutions(
    sample: Sample, name: str, solver: Solver, budgets: Sequence[int], yardstick: Yardstick
) -> Iterator[Solution]:
    steps = {steps_within(solver, budget) for budget in budgets} - {0}
    for n in sorted(steps):
        found = sample(solver, n)
        cost, errors = (found.evaluations, found.rounds), yardstick.judge(found)
        yield Solution(name, n, *cost, yardstick.against, *errors, yardstick.doubt)
