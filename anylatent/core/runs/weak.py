"""The denoiser of a weaker run, for autoguidance, and what of it must agree with the guided one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anylatent.core.denoisers import Denoiser
from anylatent.core.generators import Diffusion
from anylatent.core.guidance import OnlyConditions
from anylatent.core.process import Schedule
from anylatent.core.support.files import UserError

if TYPE_CHECKING:
    from anylatent.core.runs.run import Run

TOLERANCE = 1e-3
"""Relative, of normalisers: they are fitted anew, perhaps on another device."""


def weak_denoiser(run: Run, weak: Run) -> Denoiser:
    """The denoiser of `weak`, told those conditions that it knows.

    Raises UserError, naming what differs, where its latents, schedule or conditions are not those
    of `run`.
    """
    path, generator = weak.directory.path, weak.system.generator
    problems = list(_differences(run, weak))
    if problems or not isinstance(generator, Diffusion):
        raise UserError(
            f"guidance.weak={path} can not guide {run.directory.path}: {'; '.join(problems)}. "
            "Train it as that run, with another run=, take=autoencoder from="
            f"{run.directory.path}, and a smaller backbone or fewer steps"
        )
    return OnlyConditions(generator.denoiser, weak.system.conditioner.spec.names)


def _differences(run: Run, weak: Run) -> Iterator[str]:
    own, other = run.system, weak.system
    if not isinstance(own.generator, Diffusion) or not isinstance(other.generator, Diffusion):
        kinds = f"{type(other.generator).__name__} and {type(own.generator).__name__}"
        yield f"generators {kinds}, where both must have a denoiser (generator=diffusion)"
        return
    if own.autoencoder.spec != other.autoencoder.spec:
        yield f"its latents are {other.autoencoder.spec}, not {own.autoencoder.spec}"
        return
    for name, tolerance in (("autoencoder", 0.0), ("normaliser", TOLERANCE)):
        mine, its = (getattr(s, name).state_dict() for s in (own, other))
        if not _same(mine, its, tolerance):
            yield f"its {name} has other values"
    if not _same_levels(own.generator.denoiser.schedule, other.generator.denoiser.schedule):
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
