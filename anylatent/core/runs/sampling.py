"""Samplers from configurations, and what a guidance needs of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anylatent.core.denoisers import Classify, Denoiser
from anylatent.core.generators import Guidance, Sampler
from anylatent.core.latents import Noise
from anylatent.core.process import Grid, Times
from anylatent.core.registry import build, part
from anylatent.core.runs.config import Node, SamplingConfig
from anylatent.core.solvers import Solver
from anylatent.core.support.files import UserError


@dataclass(frozen=True)
class Context:
    """What samplers may follow of a run.

    `times`: the law of its training times, for grids. For guidance: `classifiers` by label, the
    conditions `known` to the model, and `load_denoiser`, which loads what stands for a denoiser
    of its own in another run.
    """

    times: Times | None = None
    classifiers: Mapping[str, Classify] = field(default_factory=dict)
    known: Sequence[str] = ()
    load_denoiser: Callable[[str, Denoiser], Denoiser] | None = None

    @staticmethod
    def check_guidance(guidance: Node | None, conditions: Sequence[str]) -> None:
        """Raises UserError where a guidance asks for a condition or a run that is not there."""
        for node in guidances(guidance):
            wrong = [name for name in node.get("scales") or {} if name not in conditions]
            if wrong:
                raise UserError(
                    f"guidance.scales.{wrong[0]}: this run has no such condition; it has "
                    f"{', '.join(conditions) or 'none'}"
                )
            if "weak" in part("guidance", node["name"]).settings() and not node.get("weak"):
                raise UserError(
                    f"guidance={node['name']} needs a weaker run of the same latents: add "
                    "guidance.weak=RUN"
                )

    def sampler(self, config: SamplingConfig, temperature: float | None = None) -> Sampler:
        """What a configuration says; raises UserError where it makes no sense."""
        if config.steps < 1:
            raise UserError(f"steps={config.steps}: sampling needs at least one step")
        return Sampler(
            solver_of(config.solver),
            self.grid(config.grid),
            config.steps,
            self.guidance(config.guidance),
            temperature,
        )

    def grid(self, node: Node) -> Grid:
        grid: Grid = build("grid", node, **({} if self.times is None else {"times": self.times}))
        return grid

    def guidance(self, node: Node | None) -> Guidance | None:
        """None without any; it awaits its denoiser."""
        if not guides(node):
            return None
        assert node is not None
        given, load = {"classifiers": self.classifiers, "known": self.known}, self.load_denoiser

        def guide(denoiser: Denoiser, noise: Noise) -> Denoiser:
            other = None if load is None else lambda path: load(path, denoiser)
            guided: Denoiser = build(
                "guidance", node, denoiser=denoiser, noise=noise, load_denoiser=other, **given
            )
            return guided

        return guide


def solver_of(node: Node) -> Solver:
    solver: Solver = build("solver", node)
    return solver


def guidances(guidance: Node | None) -> list[Node]:
    """The settings of a guidance and of those that it guides in turn, outermost first."""
    found = []
    while guidance is not None and guidance["name"] != "none":
        found.append(guidance)
        guidance = guidance.get("denoiser")
    return found


def guides(guidance: Node | None) -> bool:
    """Whether there is any guidance."""
    return bool(guidances(guidance))


def steers(guidance: Node | None) -> bool:
    """Whether a guidance follows classifiers."""
    return any(
        "classifiers" in part("guidance", node["name"]).parameters() for node in guidances(guidance)
    )


def guidance_of(given: float | Node | None, own: Node | None) -> Node | None:
    """A guidance's settings from its scale, from themselves, or, without, the run's own."""
    if isinstance(given, (int, float)):
        return {**(own or {"name": "classifier_free"}), "scale": float(given)}
    return own if given is None else dict(given)


def node_of(given: object, own: Any) -> Any:
    """A part's node from its name or its settings; where neither is given, but nothing or the part
    itself, the run's own."""
    if isinstance(given, str):
        return {"name": given}
    return dict(given) if isinstance(given, Mapping) else own
