"""The denoiser of a weaker run, for autoguidance, and what of it must agree with the guided one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser, Preconditioned, ScoreInterpolation
from anylatent.core.guidance import OnlyConditions
from anylatent.core.nn.backbone import Backbone
from anylatent.core.process import Schedule
from anylatent.core.support.files import UserError

if TYPE_CHECKING:
    from anylatent.core.runs.run import Run

TOLERANCE = 1e-3
"""Relative, of normalisers: they are fitted anew, perhaps on another device."""


def weak_denoiser(run: Run, weak: Run, denoiser: Denoiser) -> Denoiser:
    """The denoiser of `weak` that stands for one of `run`, of the same stage, told those conditions
    that it knows.

    Raises UserError, naming what differs, where its latents, schedule or conditions are not those
    of `run`.
    """
    path, others = weak.directory.path, weak.system.generator.denoisers
    problems = list(_differences(run, weak))
    if problems:
        raise UserError(
            f"guidance.weak={path} can not guide {run.directory.path}: {'; '.join(problems)}. "
            "Train it as that run, with another run=, take=autoencoder from="
            f"{run.directory.path}, and a smaller backbone or fewer steps"
        )
    own = run.system.generator.denoisers
    (stage,) = (name for name, one in own.items() if _backbone(one) is _backbone(denoiser))
    made = _backbone(others[stage]).conditions.latents
    return OnlyConditions(others[stage], [*weak.system.conditioner.spec.names, *made])


def _backbone(denoiser: Denoiser) -> Backbone:
    """Which is one and the same at any temperature."""
    assert isinstance(denoiser, Preconditioned | ScoreInterpolation)
    return denoiser.backbone


def _differences(run: Run, weak: Run) -> Iterator[str]:
    own, other = run.system, weak.system
    mine, its = own.generator.denoisers, other.generator.denoisers
    if not mine or list(mine) != list(its):
        kinds = f"{type(other.generator).__name__} and {type(own.generator).__name__}"
        yield (
            f"generators {kinds}, where both must have denoisers of the same stages "
            "(generator=diffusion or cascade)"
        )
        return
    if own.autoencoder.spec != other.autoencoder.spec:
        yield f"its latents are {other.autoencoder.spec}, not {own.autoencoder.spec}"
        return
    for name, tolerance in (("autoencoder", 0.0), ("normaliser", TOLERANCE)):
        values = [getattr(s, name).state_dict() for s in (own, other)]
        if not _same(values[0], values[1], tolerance):
            yield f"its {name} has other values"
    for stage in mine:
        told = [list(_backbone(some[stage]).conditions.latents) for some in (mine, its)]
        if not set(told[1]) <= set(told[0]):
            yield f"its stage {stage} is told of {', '.join(told[1])}"
    if not all(_same_levels(mine[stage].schedule, its[stage].schedule) for stage in mine):
        yield "its noise schedule is another one"
    yield from _other_conditions(run, weak)


def _same(mine: dict[str, Tensor], its: dict[str, Tensor], tolerance: float) -> bool:
    if mine.keys() != its.keys() or any(mine[k].shape != its[k].shape for k in mine):
        return False
    return all(
        torch.allclose(value.double(), its[name].to(value.device).double(), tolerance, tolerance)
        for name, value in mine.items()
    )


@torch.no_grad()
def _same_levels(mine: Schedule, its: Schedule) -> bool:
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    pairs = zip(mine.coefficients(t), its.coefficients(t), strict=True)
    return all(torch.allclose(a, b.to(a), rtol=1e-5, atol=1e-8) for a, b in pairs)


def _other_conditions(run: Run, weak: Run) -> Iterator[str]:
    """It may know fewer conditions; those that it knows must mean the same."""
    its, mine = (part.system.conditioner for part in (weak, run))
    names = its.spec.names
    unknown = [name for name in names if name not in mine.spec.names]
    if unknown:
        yield f"it knows conditions that this run has not: {', '.join(unknown)}"
    elif names and run.config.model.conditioner != weak.config.model.conditioner:
        yield (
            f"its conditioner is {weak.config.model.conditioner}, not "
            f"{run.config.model.conditioner}"
        )
    elif names and not _same(mine.state_dict(), its.state_dict(), 0.0):
        yield "its conditioner has learned something else"
    for name in its.columns:
        told = [_facts(part, name) for part in (run, weak)]
        if told[0] != told[1]:
            yield f"its data say {told[1]} about {name}, not {told[0]}"


def _facts(run: Run, name: str) -> list[object]:
    """What the data said about a column, such as its classes."""
    facts = (value for value in run.config.facts.values() if isinstance(value, dict))
    return [value[name] for value in facts if name in value]
