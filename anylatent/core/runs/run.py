"""A trained model, loaded from its run directory, and its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from anylatent.core.denoisers import Denoiser
from anylatent.core.generators import Callback, Guidance
from anylatent.core.latents import Latent, Seed
from anylatent.core.modality import Outputs
from anylatent.core.process import Grid
from anylatent.core.runs.classifiers import load_classifiers
from anylatent.core.runs.config import Config
from anylatent.core.runs.directory import RunDirectory
from anylatent.core.runs.sampling import check_guidance, sampling_parts, steers
from anylatent.core.runs.stored_noise import begin
from anylatent.core.runs.system import System
from anylatent.core.solvers import Solver
from anylatent.core.support.files import UserError


class Run:
    """A trained model, ready to sample."""

    def __init__(self, directory: RunDirectory, config: Config, system: System) -> None:
        self.directory, self.config, self.system = directory, config, system
        self._weak: dict[str, Denoiser] = {}

    @classmethod
    def load(cls, path: str | Path, device: str | None = None, modality: str | None = None) -> Run:
        """`modality`, if given, must be the run's own."""
        directory = RunDirectory(Path(path))
        config = directory.config()
        own = (config.get("modality") or {}).get("name")
        if modality is not None and modality != own:
            raise UserError(f"modality={modality}, but {path} is a run of {own}")
        tensors, stage = directory.weights()
        if stage != "diffusion":
            raise UserError(
                f"{path} has only its autoencoder so far: continue with 'anylatent train "
                f"run={path} stage=diffusion' and the settings it was begun with"
            )
        try:
            system = System(config, config["facts"])
        except KeyError as error:
            raise UserError(f"{directory.config_path} lacks the key {error}") from error
        system.load_trained(tensors)
        found = load_classifiers(directory.path, system.autoencoder.spec, system.schedule)
        for made, classifier in found.values():
            system.steer_by(made.label, made.classes, classifier)
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(directory, config, system.eval().requires_grad_(False).to(chosen))

    def sample(
        self,
        n: int | None = None,
        seed: int = 0,
        seeds: Sequence[Seed] | None = None,
        solver: str | Mapping[str, Any] | Solver | None = None,
        steps: int | None = None,
        grid: str | Mapping[str, Any] | Grid | None = None,
        guidance: float | Mapping[str, Any] | None = None,
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
        seeds = _seeds(n, seed, seeds, noise)
        if batch < 1:
            raise UserError(f"batch={batch}: at least one sample at a time")
        steps = self.config["steps"] if steps is None else steps
        if steps < 1:
            raise UserError(f"steps={steps}: sampling needs at least one step")
        followed = self._guidance(guidance)
        parts = self._parts(solver, grid, followed)
        columns = per_sample(cond or {}, len(seeds))
        self.check_asked(list(columns), followed)
        pieces = []
        for start in range(0, len(seeds), batch):
            part = slice(start, start + batch)
            chosen = {name: values[part] for name, values in columns.items()}
            source = begin(seeds, noise, part)
            with self.system.generator.tempered(temperature):
                made = self.system.sample(source, chosen, *parts[:2], steps, parts[2], callback)
            pieces.append(made)
        return self.system.modality.join(pieces)

    def _parts(
        self,
        solver: str | Mapping[str, Any] | Solver | None,
        grid: str | Mapping[str, Any] | Grid | None,
        guidance: Mapping[str, Any] | None,
    ) -> tuple[Solver, Grid, Guidance | None]:
        config = {**self.config, "guidance": guidance}
        for group, given in (("solver", solver), ("grid", grid)):
            if isinstance(given, (str, Mapping)):
                config[group] = {"name": given} if isinstance(given, str) else given
        system = self.system
        known = system.conditioner.spec.names
        followed = {
            "classifiers": system.classifiers,
            "known": known,
            "load_denoiser": self._weaker,
        }
        built = sampling_parts(config, system.generator.times, followed)
        return (
            solver if isinstance(solver, Solver) else built[0],
            grid if isinstance(grid, Grid) else built[1],
            built[2],
        )

    def guided(self, guidance: Mapping[str, Any] | None) -> Guidance | None:
        """What makes this run's denoiser a guided one; None without any guidance."""
        self._check_guidance(guidance)
        return self._parts(None, None, guidance)[2]

    def _weaker(self, path: str) -> Denoiser:
        """The denoiser of a weaker run on the same latents, loaded once."""
        from anylatent.core.runs.weak import weak_denoiser

        if path not in self._weak:
            self._weak[path] = weak_denoiser(self, Run.load(path, str(self.system.device)))
        return self._weak[path]

    def _guidance(self, given: float | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The settings of the guidance that is asked for, or of the run's own."""
        own: Mapping[str, Any] | None = self.config.get("guidance")
        if isinstance(given, (int, float)):
            return {**(own or {"name": "classifier_free"}), "scale": float(given)}
        return own if given is None else dict(given)

    def conditions(self, guidance: Mapping[str, Any] | None) -> list[str]:
        """The columns of the data that samples can be drawn for under a guidance."""
        labels = self.system.labels if steers(guidance) else {}
        return list(dict.fromkeys([*self.system.conditioner.spec.names, *labels]))

    def check_asked(self, names: Sequence[str], guidance: Mapping[str, Any] | None) -> None:
        """Raises UserError where samples cannot be drawn under these conditions."""
        system, path = self.system, self.directory.path
        wrong = [name for name in names if name not in system.asks]
        if wrong:
            has = ", ".join(system.asks) or "none"
            message = f"no condition {', '.join(wrong)}; this run has {has}"
            if wrong[0] in self.config["facts"]["classes"]:
                message += f". {_how_to_train(path, wrong[0])}"
            raise UserError(message)
        for name in names:
            if name not in [*self.conditions(guidance), *system.modality.asks]:
                raise UserError(
                    f"cond.{name} is a label that the run's classifier knows, not the model: add "
                    "guidance=classifier guidance.scale=2"
                )
        self._check_guidance(guidance)

    def _check_guidance(self, guidance: Mapping[str, Any] | None) -> None:
        if steers(guidance) and not self.system.classifiers:
            raise UserError(f"no classifier to follow. {_how_to_train(self.directory.path)}")
        check_guidance(guidance, self.system.conditioner.spec.names)

    def untrained(self) -> Run:
        """The same architecture with fresh weights in its generator: a floor for every figure."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = System(self.config, self.config["facts"])
        own = {k: v for k, v in self.system.trained().items() if not k.startswith("generator.")}
        fresh.load_trained({**fresh.trained(), **own})
        device = self.system.device
        return Run(self.directory, self.config, fresh.eval().requires_grad_(False).to(device))


def _seeds(
    n: int | None, seed: int, seeds: Sequence[Seed] | None, noise: Latent | None
) -> Sequence[Seed]:
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


def per_sample(cond: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
    """A list with a value for each sample, for conditions that are one or one for all."""
    columns = {}
    for name, value in cond.items():
        values = list(value) if isinstance(value, (list, tuple)) else [value] * count
        if len(values) != count:
            raise UserError(f"cond.{name} has {len(values)} values for {count} samples")
        columns[name] = values
    return columns


def _how_to_train(path: Path, label: str = "LABEL") -> str:
    return (
        f"A classifier can steer by a class column: 'anylatent train run={path} stage=classifier "
        f"classifier.label={label}', then sample with guidance=classifier"
    )


def load(path: str | Path, device: str | None = None) -> Run:
    """A trained run, from its directory."""
    return Run.load(path, device)
