"""What sampling needs beside a model: solver, grid and guidance of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anylatent.core.process import Grid, Times
from anylatent.core.registry import build, part
from anylatent.core.runs.config import Config
from anylatent.core.solvers import Solver
from anylatent.core.support.files import UserError


def sampling_parts(
    config: Config,
    times: Times | None = None,
    followed: Mapping[str, Any] | None = None,
) -> tuple[Solver, Grid, Callable[..., Any] | None]:
    """Solver, grid and guidance of a configuration; guidance awaits its denoiser.

    `times` is the law of the model's training times, which a grid may follow; `followed` is what a
    run has for guidance, by the names of their parameters, such as `classifiers`.
    """
    solver: Solver = build("solver", config["solver"])
    grid: Grid = build("grid", config["grid"], **({} if times is None else {"times": times}))
    node = config.get("guidance")
    if node is None or not guides(node):
        return solver, grid, None
    shared = dict(followed or {})
    return solver, grid, lambda denoiser: build("guidance", node, denoiser=denoiser, **shared)


def guidances(guidance: Config | None) -> list[Config]:
    """The settings of a guidance and of those that it guides in turn, outermost first."""
    found = []
    while guidance is not None and guidance["name"] != "none":
        found.append(guidance)
        guidance = guidance.get("denoiser")
    return found


def guides(guidance: Config | None) -> bool:
    """Whether there is any guidance."""
    return bool(guidances(guidance))


def steers(guidance: Config | None) -> bool:
    """Whether a guidance follows classifiers."""
    return any(
        "classifiers" in part("guidance", node["name"]).parameters() for node in guidances(guidance)
    )


def check_guidance(guidance: Config | None, conditions: Sequence[str]) -> None:
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
