"""A trained model, loaded from its run directory, and its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anylatent.core.denoisers import Denoiser
from anylatent.core.generators import Guidance, Sampler
from anylatent.core.latents import Latent
from anylatent.core.modality import ClassLabel, Outputs
from anylatent.core.nn.precision import compute_in, computed_in
from anylatent.core.process import Grid
from anylatent.core.runs.computing import Computing
from anylatent.core.runs.config import Node, RunConfig, SamplingConfig
from anylatent.core.runs.directory import RunDirectory
from anylatent.core.runs.drawing import draw
from anylatent.core.runs.restoring import restored, untrained
from anylatent.core.runs.sampling import Context, guidance_of, node_of, steers
from anylatent.core.runs.system import System
from anylatent.core.runs.within import within
from anylatent.core.solvers import Callback, Solver
from anylatent.core.support.files import UserError


class Run:
    """A trained model, ready to sample."""

    def __init__(
        self, directory: RunDirectory, config: RunConfig, system: System, computing: Computing
    ) -> None:
        self.directory, self.config, self.system = directory, config, system
        self.computing, self._others = computing, dict[str, Run]()

    @classmethod
    def load(
        cls,
        path: str | Path,
        computing: Computing | None = None,
        modality: str | None = None,
        base: str | None = None,
        generator: Node | None = None,
    ) -> Run:
        """`modality` must be its own, `base` is where its base has moved, `generator` around it."""
        directory, how = RunDirectory(Path(path)), computing or Computing()
        config = directory.config()
        _check_modality(config, modality, path)
        within(system := restored(directory, config, base), generator)
        return cls(directory, config, how.placed(system, directory.stages().precision), how)

    # ---- samples ------------------------------------------------------------------------------
    def sample(
        self,
        n: int | None = None,
        seed: int = 0,
        seeds: Sequence[int | tuple[int, ...]] | None = None,
        solver: str | Node | Solver | None = None,
        steps: int | None = None,
        grid: str | Node | Grid | None = None,
        guidance: float | Node | None = None,
        temperature: float | None = None,
        cond: Mapping[str, Any] | None = None,
        batch: int = 64,
        callback: Callback | None = None,
        noise: Latent | None = None,
    ) -> Outputs:
        """Samples 0 … n − 1 of a seed, or one for each of `seeds`; what isn't given is the run's.

        Sample i is the same whatever n and `batch` are. `solver` and `grid` are names, settings
        `{name: ...}` or objects; `guidance` is a scale, or the settings of a guidance;
        `temperature` divides the logits of tokens. `cond` has a value for all samples by name, or a
        list with one for each. Samples start from the latents `noise`, one for each, and have their
        sizes, where they are given: those that `invert` found, as in `StoredNoise.load`.
        """
        seeds, own = _seeds(n, seed, seeds, noise), self.config.sampling.guidance
        how, columns = guidance_of(guidance, own), self.columns(cond or {}, len(seeds))
        sampler = self.sampler(solver, grid, how, steps, temperature)
        self.check_asked(list(columns), how)
        return self.draw(sampler, seeds, columns, batch, callback, noise)

    def draw(
        self,
        sampler: Sampler,
        seeds: Sequence[int | tuple[int, ...]],
        columns: Mapping[str, Sequence[Any]],
        batch: int = 64,
        callback: Callback | None = None,
        noise: Latent | None = None,
    ) -> Outputs:
        """Samples by one sampler, under columns with an entry for each seed, batch by batch."""
        return draw(self.system, sampler, seeds, columns, batch, callback, noise)

    def sampler(
        self,
        solver: str | Node | Solver | None = None,
        grid: str | Node | Grid | None = None,
        guidance: Node | None = None,
        steps: int | None = None,
        temperature: float | None = None,
    ) -> Sampler:
        """How samples are drawn; what isn't given, but for guidance, is the run's own."""
        own = self.config.sampling
        chosen = node_of(solver, own.solver), node_of(grid, own.grid)
        nodes = SamplingConfig(*chosen, guidance, own.steps if steps is None else steps)
        found = self.context.sampler(nodes, temperature)
        if isinstance(solver, Solver):
            found = replace(found, solver=solver)
        if isinstance(grid, Grid):
            found = replace(found, grid=grid)
        self.system.generator.accepts(found)
        return found

    @property
    def precision(self) -> str:
        """What its networks compute in."""
        return self.computing.named(self.system)

    @property
    def context(self) -> Context:
        """What samplers may follow of it."""
        system, known = self.system, self.system.conditioner.spec.names
        return Context(system.generator.times, system.classifiers, known, self._other)

    def _other(self, path: str, denoiser: Denoiser) -> Denoiser:
        """What stands for a denoiser of this one in a weaker run, which is loaded once."""
        from anylatent.core.runs.weak import weak_denoiser

        if path not in self._others:
            other = self._others[path] = Run.load(path, self.computing)
            compute_in(other.system, computed_in(self.system))  # whatever it was trained in
        return weak_denoiser(self, self._others[path], denoiser)

    # ---- guidance -----------------------------------------------------------------------------
    def guided(self, guidance: Node | None) -> Guidance | None:
        """What makes this run's denoiser a guided one; None without any guidance."""
        self._check_guidance(guidance)
        return self.context.guidance(guidance)

    def conditions(self, guidance: Node | None) -> list[str]:
        """The columns of the data that samples can be drawn for under a guidance."""
        labels = self.system.labels if steers(guidance) else {}
        return list(dict.fromkeys([*self.system.conditioner.columns, *labels]))

    def columns(self, cond: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
        """What is asked of each of so many samples."""
        return per_sample(cond, count, self.config.classes, self.system.modality.lists)

    def check_asked(self, names: Sequence[str], guidance: Node | None) -> None:
        """Raises UserError where samples cannot be drawn under these conditions."""
        system, path = self.system, self.directory.path
        wrong = [name for name in names if name not in system.asks]
        if wrong:
            has = ", ".join(system.asks) or "none"
            message = f"no condition {', '.join(wrong)}; this run has {has}"
            if wrong[0] in self.config.classes:
                message += f". {_how_to_train(path, wrong[0])}"
            raise UserError(message)
        known = [*self.conditions(guidance), *system.modality.asks]
        if labels := [name for name in names if name not in known]:
            raise UserError(
                f"cond.{labels[0]} is a label that the run's classifier knows, not the model: add "
                "guidance=classifier guidance.scale=2"
            )
        self._check_guidance(guidance)

    def _check_guidance(self, guidance: Node | None) -> None:
        if steers(guidance) and not self.system.classifiers:
            raise UserError(f"no classifier to follow. {_how_to_train(self.directory.path)}")
        Context.check_guidance(guidance, self.system.conditioner.spec.names)

    def untrained(self) -> Run:
        """The same architecture with fresh weights in its generator: a floor for every figure."""
        fresh = untrained(self.directory, self.config, self.system)
        placed = self.computing.placed(fresh, self.precision)
        return Run(self.directory, self.config, placed, self.computing)


def _check_modality(config: RunConfig, wanted: str | None, path: str | Path) -> None:
    own = config.model.modality["name"]
    if wanted is not None and wanted != own:
        raise UserError(f"modality={wanted}, but {path} is a run of {own}")


def _seeds(
    n: int | None, seed: int, seeds: Sequence[int | tuple[int, ...]] | None, noise: Latent | None
) -> Sequence[int | tuple[int, ...]]:
    """Those of n samples, or of as many as start from given noise."""
    if n is None and seeds is None:
        n = 1 if noise is None else noise.batch
    if n is not None and n < 1:
        raise UserError(f"n={n}: ask for at least one sample")
    found = [(seed, i) for i in range(n or 0)] if seeds is None else seeds
    if n is not None and n != len(found):
        raise UserError(f"n={n}, but {len(found)} seeds were given")
    if noise is not None and noise.batch != len(found):
        raise UserError(f"{len(found)} samples, but noise for {noise.batch}")
    return found


def per_sample(
    cond: Mapping[str, Any],
    count: int,
    classes: Mapping[str, Sequence[str]] | None = None,
    lists: Sequence[str] = (),
) -> dict[str, list[Any]]:
    """A list with a value for each sample, for conditions that are given once for all (a value, or
    a list with nothing else in it) or once for each. A number is the class of that name, where
    `classes` have such names. In `lists` are those whose value is a list of plain values."""
    columns = {}
    for name, value in cond.items():
        several = isinstance(value, (list, tuple))
        if several and name in lists and not any(isinstance(v, list | None) for v in value):
            several = False
        values = list(value) if several else [value] * count
        values = values * count if len(values) == 1 else values
        if len(values) != count:
            raise UserError(f"cond.{name} has {len(values)} values for {count} samples")
        names = (classes or {}).get(name, ())
        columns[name] = [ClassLabel.typed(entry, names) for entry in values]
    return columns


def _how_to_train(path: Path, label: str = "LABEL") -> str:
    return (
        f"A classifier can steer by a class column: 'anylatent train run={path} stage=classifier "
        f"classifier.label={label}', then sample with guidance=classifier"
    )


def load(
    path: str | Path,
    device: str | None = None,
    base: str | None = None,
    precision: str = "run",
    compile: bool | str = False,
    generator: str | Node | None = None,
) -> Run:
    """A trained run, from its directory; `base` is where what it leans on has moved to, `generator`
    one around its own, such as windows. See `Computing` for the others."""
    around = node_of(generator, None)
    return Run.load(path, Computing(device, precision, compile), base=base, generator=around)
