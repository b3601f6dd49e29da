"""Samples of a model: the latents that they begin with, what must be in them, and the outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from anylatent.core.generators import Sampler, schedules_of
from anylatent.core.inverse import Known, begin_with
from anylatent.core.latents import Latent, Masking, Noise, Started
from anylatent.core.modality import Outputs, join, move
from anylatent.core.nn.precision import computed_in, exactly
from anylatent.core.runs.system import System
from anylatent.core.runs.watch import NotFinite, Watch
from anylatent.core.solvers import Callback
from anylatent.core.support.files import UserError


@torch.no_grad()
def sample(
    system: System,
    sampler: Sampler,
    noise: Noise,
    columns: Mapping[str, Any],
    callback: Callback | None = None,
) -> Outputs:
    """Decoded samples, one for each seed of `noise`."""
    start = blank(system, noise, columns)
    cond, given = system.condition(columns), system.modality.given
    known = None if given is None else given.known(start, columns)
    if given is not None and known is not None:
        sampler = replace(sampler, known=completing(system, known, given.strength, start))
    watch = Watch(callback)
    z = system.generator.sample(start, cond, sampler, noise, watch)
    watch.check(z)
    outputs = system.decode(z)
    return outputs if given is None or known is None else given.complete(outputs, known)


def draw(
    system: System,
    sampler: Sampler,
    seeds: Sequence[int | tuple[int, ...]],
    columns: Mapping[str, Sequence[Any]],
    batch: int = 64,
    callback: Callback | None = None,
    noise: Latent | None = None,
) -> Outputs:
    """Samples, one for each seed, batch by batch; `columns` and `noise` have one for each, too."""
    if batch < 1:
        raise UserError(f"batch={batch}: at least one sample at a time")
    parts = [slice(start, start + batch) for start in range(0, len(seeds), batch)]
    pieces = list[Outputs]()
    with precisely(system, sampler):
        for part in parts:
            chosen = {name: values[part] for name, values in columns.items()}
            source = Noise(seeds[part])
            if noise is not None:
                source = Started(seeds[part], noise.select(part))
            try:
                pieces.append(sample(system, sampler, source, chosen, callback))
            except NotFinite as wrong:
                wrong.made = join(pieces) if pieces else None
                wrong.args = (_not_finite(wrong, sampler, seeds[part]),)
                raise
    return join(pieces)


@contextmanager
def precisely(system: System, sampler: Sampler) -> Iterator[None]:
    """In float32, in the block, where a solver is to be more exact than networks in bfloat16."""
    low, tolerance = torch.finfo(torch.bfloat16).eps, sampler.solver.tolerance
    if not 0 < tolerance < low:
        yield
        return
    if computed_in(system) is not None:
        warnings.warn(
            f"networks in bfloat16 are exact to {low:.1g}, and the tolerance of this solver is "
            f"{tolerance:g}: they compute in float32",
            stacklevel=3,
        )
    with exactly():
        yield


def blank(system: System, noise: Noise, columns: Mapping[str, Any]) -> Latent:
    """The zero latent that samples begin with, of sizes that are asked for or drawn, those of
    noise that is given, or as large as a generator may need."""
    if isinstance(noise, Started):
        return _started(system, noise.start, columns)
    spec, modality = system.autoencoder.spec, system.modality
    return system.generator.blank(modality, spec, noise, columns).to(system.device)


def _started(system: System, start: Latent, columns: Mapping[str, Any]) -> Latent:
    if not schedules_of(system.generator):
        raise UserError(
            f"{type(system.generator).__name__} makes samples from no noise: leave out noise="
        )
    for name in system.modality.sizes.asks:
        if columns.get(name) is not None:
            raise UserError(f"cond.{name}: noise that is given has its own sizes; leave it out")
    return start.zeros().to(system.device)


def completing(system: System, known: Mapping[str, Any], strength: float, start: Latent) -> Known:
    """Known data as latents, for samples that contain them."""
    stages = list(system.generator.denoisers)
    if len(stages) > 1:
        raise UserError(
            f"samples of this run are made in the stages {', '.join(stages)}, none of which sees "
            "all that is given: train generator=diffusion to complete data"
        )
    moved = move(known, system.device)
    given = moved.pop("given", None)
    begun = system.normaliser.encode(system.autoencoder.encode(moved).mean)
    if given is None:
        begun, places = begin_with(begun, start)
    elif begun.masks:
        places = dict.fromkeys(begun.parts, given)
    else:
        raise UserError(
            "parts of a sample can be given where each has a latent of its own, but the "
            f"{type(system.autoencoder).__name__} mixes them into {begun.spec}"
        )
    return Known(begun, places, strength)


@torch.no_grad()
def completed(
    system: System,
    sampler: Sampler,
    noise: Noise,
    batch: Mapping[str, Any],
    masking: Masking,
    callback: Callback | None = None,
) -> tuple[Outputs, Tensor]:
    """A sample for each of some data, of which a rule says what is given; and which entries these
    are, (B, N) bool. The rule draws from a source of its own, so that what is given of a sample
    does not depend on its neighbours."""
    known = system.normaliser.encode(system.autoencoder.encode(batch).mean)
    given = masking.given(known, noise.apart(2))
    places = next(iter(given.values()))
    places = places.reshape(len(places), -1)
    masks = {name: given.get(name, _nothing(known, name)) for name in known.parts}
    own = system.modality.given
    strength = 1.0 if own is None else own.strength
    told = replace(sampler, known=Known(known, masks, strength))
    watch, cond = Watch(callback), system.condition(system.columns(batch))
    z = system.generator.sample(known.zeros(), cond, told, noise, watch)
    watch.check(z)
    outputs = system.decode(z)
    return outputs if own is None else own.put(outputs, batch, places), places.cpu()


def _nothing(known: Latent, name: str) -> Tensor:
    return torch.zeros(known[name].shape[:2], dtype=torch.bool, device=known.device)


def _not_finite(wrong: NotFinite, sampler: Sampler, seeds: Sequence[Any]) -> str:
    row, step = wrong.rows[0], wrong.steps[0]
    more = f", and {len(wrong.rows) - 1} more of its batch" if len(wrong.rows) > 1 else ""
    return (
        f"the sample of seed {seeds[row]}{more} is not finite after step {step} of "
        f"{type(sampler.solver).__name__} (steps={sampler.steps}), and is not kept. Try more "
        "steps, another solver or grid, or weaker guidance; where all samples are so, the model "
        "itself is broken"
    )
