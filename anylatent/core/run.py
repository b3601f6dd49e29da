"""A run directory: what training leaves behind, and all that sampling needs.

    config.yaml          the resolved configuration, and the facts of the data
    model.safetensors    averaged weights; its metadata says which stages are done
    classifiers/         of noisy latents, one for a label, where some were trained
    checkpoints/ logs/ pictures/ samples/

Loading executes nothing from a run: weights are safetensors, checkpoints are read as plain
tensors, and a configuration can name registered parts only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anylatent.core.classifier import load_classifiers
from anylatent.core.denoiser import Denoiser
from anylatent.core.files import UserError, load_weights, save_text, save_weights
from anylatent.core.generators import Callback, Guidance
from anylatent.core.grids import Grid
from anylatent.core.modality import Outputs
from anylatent.core.noise import Noise, Seed
from anylatent.core.registry import completed
from anylatent.core.solvers import Solver
from anylatent.core.system import Config, System, check_guidance, sampling_parts, steers

# what may change between two commands that train one run
FREE = ["run", "stage", "trainer", "pictures", "checkpoint", "log_every"]
FREE += ["solver", "grid", "guidance", "steps", "classifier", "training.classifier"]


def is_free(key: str) -> bool:
    """Whether a key of the configuration, or of what lies within it, may change."""
    return any(f"{key}.".startswith(f"{free}.") for free in FREE)


class RunDirectory:
    """The files of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def weights_path(self) -> Path:
        return self.path / "model.safetensors"

    def checkpoint(self, stage: str) -> Path:
        return self.path / "checkpoints" / f"{stage}.ckpt"

    def claim(self, config: Config, facts: Mapping[str, Any]) -> None:
        """Writes the configuration, or checks that the directory holds the same one."""
        from omegaconf import OmegaConf

        described = {**config, "facts": dict(facts)}
        if not self.config_path.exists():
            save_text(self.config_path, OmegaConf.to_yaml(OmegaConf.create(described)))
            return
        old = completed(self.config())
        new = OmegaConf.to_container(OmegaConf.create(described))
        assert isinstance(new, dict)
        new = completed({str(key): value for key, value in new.items()})
        differences = [
            f"{key}: {before} there, {after} now"
            for key, before, after in _differences(old, new)
            if not is_free(key)
        ]
        if differences:
            shown = "; ".join(differences[:5]) + (" ..." if len(differences) > 5 else "")
            raise UserError(
                f"{self.path} holds a run with another configuration ({shown}); give run= another "
                "directory, or repeat its settings to continue it"
            )

    def config(self) -> dict[str, Any]:
        """The saved configuration, as plain values."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError  # type: ignore[import-untyped]

        if not self.path.is_dir():
            raise UserError(f"there is no run at {self.path}")
        if not self.config_path.is_file():
            raise UserError(f"{self.path} is no run directory: it has no config.yaml")
        try:
            config = OmegaConf.to_container(OmegaConf.load(self.config_path), resolve=True)
        except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
            raise UserError(f"{self.config_path} can not be read: {error}") from error
        if not isinstance(config, dict) or "facts" not in config:
            raise UserError(f"{self.config_path} is no configuration of a run, or is cut short")
        targets = list(_targets(config))
        if targets:
            raise UserError(
                f"{self.config_path} asks to construct {', '.join(targets)}, which is refused: a "
                "run may only name registered parts ('anylatent list')"
            )
        return {str(key): value for key, value in config.items()}

    def weights(self) -> tuple[dict[str, Tensor], str]:
        """The weights, and the last stage that is done."""
        if not self.weights_path.is_file():
            pickles = [
                p.name for e in ("pt", "pth", "bin", "pkl") for p in self.path.glob(f"*.{e}")
            ]
            also = f" ({', '.join(pickles)} would be a pickle, never loaded)" if pickles else ""
            raise UserError(
                f"{self.path} has no model.safetensors{also}: its training is not finished. "
                "Repeat the train command to continue"
            )
        tensors, metadata = load_weights(self.weights_path)
        return tensors, metadata.get("stage", "")

    def stage(self) -> str | None:
        """The last stage that is done, if any."""
        return self.weights()[1] if self.weights_path.exists() else None

    def save(self, tensors: Mapping[str, Tensor], stage: str) -> None:
        """Weights of a finished stage; its checkpoint is no longer needed."""
        if first_process():
            save_weights(self.weights_path, tensors, {"stage": stage})
            self.checkpoint(stage).unlink(missing_ok=True)

    def load_checkpoint(self, stage: str) -> dict[str, Any]:
        path = self.checkpoint(stage)
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises half a dozen kinds for a broken file
            raise UserError(
                f"{path} is no checkpoint of plain tensors ({type(error).__name__}); it is not "
                "loaded. Remove it to start the stage anew"
            ) from error
        return state


def first_process() -> bool:
    """Whether this is the first of several processes, which alone writes."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return True
    return distributed.get_rank() == 0


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if str(key).startswith("_") and str(key).endswith("_"):
                yield f"{key}: {value}"
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _differences(
    old: Mapping[Any, Any], new: Mapping[Any, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in [*old, *(k for k in new if k not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after


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
    ) -> Outputs:
        """Samples 0 … n − 1 of a seed, or one for each of `seeds`; what isn't given is the run's.

        Sample i is the same whatever n and `batch` are. `solver` and `grid` are names, settings
        `{name: ...}` or objects; `guidance` is a scale, or the settings of a guidance;
        `temperature` divides the logits of tokens. `cond` has a value for all samples by name, or a
        list with one for each.
        """
        if seeds is None:
            count = 1 if n is None else n
            if count < 1:
                raise UserError(f"n={count}: ask for at least one sample")
            seeds = [(seed, i) for i in range(count)]
        elif n is not None and n != len(seeds):
            raise UserError(f"n={n}, but {len(seeds)} seeds were given")
        if batch < 1:
            raise UserError(f"batch={batch}: at least one sample at a time")
        steps = self.config["steps"] if steps is None else steps
        if steps < 1:
            raise UserError(f"steps={steps}: sampling needs at least one step")
        followed = self._guidance(guidance)
        parts = self._parts(solver, grid, followed)
        columns = _columns(cond or {}, len(seeds))
        self.check_asked(list(columns), followed)
        pieces = []
        for start in range(0, len(seeds), batch):
            part = slice(start, start + batch)
            chosen = {name: values[part] for name, values in columns.items()}
            noise = Noise(seeds[part])
            with self.system.generator.tempered(temperature):
                made = self.system.sample(noise, chosen, *parts[:2], steps, parts[2], callback)
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
        followed = {"classifiers": system.classifiers, "known": known, "weaker": self._weaker}
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
        from anylatent.core.weak import weak_denoiser

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


def _columns(cond: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
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
