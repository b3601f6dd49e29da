"""Conditions that are samples of another run: `cond.NAME.run=RUN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anylatent.core.modality import Outputs
from anylatent.core.runs.run import Run
from anylatent.core.support.files import UserError

SUFFIX = ".run"
"""`cond.first.run=RUN`: what is given as `first` is a sample of that run."""


def of_first_runs(
    run: Run, cond: Mapping[str, Any], seeds: Sequence[tuple[int, ...]], batch: int = 64
) -> tuple[dict[str, Any], dict[str, Outputs]]:
    """Conditions with a sample in place of each `NAME.run`, one for each seed, and these samples.

    They are drawn as that run says, with the same seeds, under those of the other conditions that
    tell what is shown. Raises UserError for a run that can't have made what is wanted.
    """
    named = {key.removesuffix(SUFFIX): key for key in cond if key.endswith(SUFFIX)}
    found, made = {k: v for k, v in cond.items() if k not in named.values()}, dict[str, Outputs]()
    for name, key in named.items() if seeds else ():
        path = cond[key]
        wanted = {} if run.system.modality.given is None else run.system.modality.given.made_by
        if name not in wanted or name in found or not isinstance(path, str):
            allowed = " or ".join(f"cond.{n}{SUFFIX}=RUN" for n in wanted) or "no samples"
            raise UserError(
                f"cond.{key}={path}: this run can be given {allowed}, the path of one run, and "
                f"nothing as the same condition beside it"
            )
        first = Run.load(path, run.computing)
        _check(run, first, f"cond.{key}={path}", wanted[name])
        made[name] = _drawn(run, first, found, seeds, batch, f"cond.{key}={path}")
        entries: Any = made[name]
        found[name] = list(entries)
    return found, made


def _check(run: Run, first: Run, said: str, modality: str) -> None:
    """Raises UserError for samples of another kind, or of another shape."""
    kind = first.config.model.modality["name"]
    if kind != modality:
        raise UserError(f"{said} is a run of {kind}, and one of {modality} is wanted")
    own, other = (tuple(one.config.facts.get("shape", ())) for one in (run, first))
    if own != other:
        raise UserError(
            f"{said} makes samples of shape {other}, and this run is of {own}: train one of the "
            f"two at the other's size"
        )


def _drawn(
    run: Run,
    first: Run,
    cond: Mapping[str, Any],
    seeds: Sequence[tuple[int, ...]],
    batch: int,
    said: str,
) -> Outputs:
    shared = [name for name in run.system.conditioner.shared if name in cond]
    unknown = [name for name in shared if name not in first.system.conditioner.columns]
    if unknown:
        has = ", ".join(first.system.conditioner.columns) or "none"
        raise UserError(
            f"{said} does not know cond.{unknown[0]}, under which its sample is to be drawn; it "
            f"has {has}"
        )
    columns = first.columns({name: cond[name] for name in shared}, len(seeds))
    guidance = first.config.sampling.guidance
    first.check_asked(list(columns), guidance)
    print(f"{len(seeds)} samples of {first.directory.path} come first", flush=True)
    return first.draw(first.sampler(guidance=guidance), seeds, columns, batch)
