"""Samples of a run as files, with a contact sheet: `anylatent sample`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anylatent.core.generators import Around, Sampler, steps_of
from anylatent.core.latents import Latent, Noise
from anylatent.core.modality import Outputs, exact
from anylatent.core.runs.computing import Computing
from anylatent.core.runs.config import Node, SamplingConfig, inline
from anylatent.core.runs.drawing import blank
from anylatent.core.runs.first_run import of_first_runs
from anylatent.core.runs.records import writing
from anylatent.core.runs.run import Run
from anylatent.core.runs.stored_noise import StoredNoise
from anylatent.core.runs.watch import NotFinite
from anylatent.core.support.files import UserError, file_name, replacing
from anylatent.core.support.progress import bar

SHEET = 256
"""Samples on a contact sheet, unless there is a row for each class."""


@dataclass(frozen=True)
class SampleConfig:
    """n samples of a seed, drawn so. `each`: n for each class of a column, a row each. `cond` has a
    value, or a list of n, by name. `noise`: a file of `anylatent invert`, whose n and settings
    count unless given; `NAME.run` in `cond` is a run whose samples are given and saved. `batch`
    samples are drawn at a time, which changes none. `run_is` names the modality that the run must
    be of, `base` where what it leans on has moved to. `lossless`: as files that keep every number.
    `generator`: one around the run's own, such as windows."""

    run: str
    sampling: SamplingConfig = inline()
    computing: Computing = inline(Computing)
    generator: Node | None = None
    run_is: str | None = None
    base: str | None = None
    n: int = 16
    seed: int = 0
    temperature: float | None = None
    batch: int = 64
    each: str | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)
    noise: str | None = None
    lossless: bool = False
    out: str | None = None


def write_samples(config: SampleConfig) -> None:
    """Draws what is asked for, writes it, and prints where."""
    run = Run.load(config.run, config.computing, config.run_is, config.base, config.generator)
    cond, labels = dict(config.cond), list[str]()
    if config.each is not None:
        labels = _classes(run, config.each)
        cond[config.each] = [label for label in labels for _ in range(config.n)]
    count, noise = config.n * max(1, len(labels)), None
    if config.noise is not None:
        noise, own = _stored(run, config, list(range(config.n)) * max(1, len(labels)))
        cond = {**own, **cond}
    seeds = [(config.seed, i) for i in range(count)]
    cond, made = of_first_runs(run, cond, seeds, config.batch)
    columns = run.columns(cond, count)
    run.check_asked(list(columns), config.sampling.guidance)
    sampler = run.context.sampler(config.sampling, config.temperature)
    folder = Path(config.out or Path(config.run) / "samples")
    prefixes = [f"{label}_" for label in cond[config.each]] if config.each else [""] * count
    names = [file_name(f"{prefix}{config.seed}_{i:05d}") for i, prefix in enumerate(prefixes)]
    with writing(Path(config.run), folder):
        try:
            outputs = drawn(run, sampler, config.seed, columns, count, config.batch, noise)
        except NotFinite as wrong:
            if wrong.made is not None:
                wrong.made.save(folder, names[: len(wrong.made)])
                print(f"the {len(wrong.made)} samples before are in {folder}")
            raise
        for kind, ones in made.items():
            ones.save(folder, [f"{name}_{kind}" for name in names])
        _write(outputs, folder, names, config, labels)


def _write(
    outputs: Outputs, folder: Path, names: list[str], config: SampleConfig, labels: list[str]
) -> None:
    """Samples as files, on a contact sheet, and where they are."""
    (exact(outputs) if config.lossless else outputs).save(folder, names)
    shown = outputs if labels else outputs[:SHEET]
    with replacing(folder / "contact_sheet.png") as temporary:
        sheet = shown.show(config.n if labels else None, labels)
        sheet.save(temporary, format="PNG")
    which = "all" if len(shown) == len(names) else f"the first {len(shown)}"
    print(f"{len(names)} samples in {folder}, {which} on {folder / 'contact_sheet.png'}")


def drawn(
    run: Run,
    sampler: Sampler,
    seed: int,
    columns: Mapping[str, Sequence[Any]],
    n: int,
    batch: int,
    noise: Latent | None = None,
) -> Outputs:
    """Samples 0 ... n - 1 of a seed, with a progress bar over all steps."""
    run.system.generator.accepts(sampler)
    if n < 1:
        raise UserError(f"n={n}: ask for at least one sample")
    seeds = [(seed, i) for i in range(n)]
    with bar("sampling", _steps(run, sampler, seeds, columns, batch, noise)) as advance:
        return run.draw(sampler, seeds, columns, batch, lambda i, t, x: advance(), noise)


def _steps(
    run: Run,
    sampler: Sampler,
    seeds: Sequence[Any],
    columns: Mapping[str, Sequence[Any]],
    batch: int,
    noise: Latent | None,
) -> int:
    """How many steps it takes to draw them all."""
    starts = range(0, len(seeds), max(1, batch))
    generator, found = run.system.generator, 0
    if not isinstance(generator, Around):
        return len(starts) * len(generator.members) * sampler.steps
    for part in (slice(start, start + batch) for start in starts):
        own = {name: values[part] for name, values in columns.items()}
        start = blank(run.system, Noise(seeds[part]), own) if noise is None else noise.select(part)
        found += steps_of(generator, start, sampler.steps)
    return found


def _classes(run: Run, key: str) -> list[str]:
    classes = run.config.classes
    if key not in classes:
        raise UserError(f"each={key}: the run's class columns are {', '.join(classes) or 'none'}")
    return list(classes[key])


def _stored(run: Run, config: SampleConfig, rows: list[int]) -> tuple[Latent, dict[str, Any]]:
    """Noise from a file, for each of some of its samples, and the conditions that it was found
    under."""
    assert config.noise is not None
    stored = StoredNoise.load(Path(config.noise), run.system.autoencoder.spec)
    if not 0 < len(set(rows)) <= stored.noise.batch:
        raise UserError(f"n={config.n}, but {config.noise} has noise of {stored.noise.batch}")
    known = run.conditions(config.sampling.guidance)
    columns = {name: values for name, values in stored.columns.items() if name in known}
    chosen = {name: [values[row] for row in rows] for name, values in columns.items()}
    return stored.noise.select(rows), chosen
