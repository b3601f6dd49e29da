"""A run directory: what training leaves behind, and all that sampling needs.

    config.yaml          what it is made from: model, data and their facts, sampling, training
    model.safetensors    averaged weights; its metadata say which stages are done, and what the run
                         leans on for weights that are not in it
    classifiers/         of noisy latents, one for a label, where some were trained
    finished/            what finished stages go on from, if they are to have more steps
    kept/                runs of the weights on the way (checkpoint.keep=every:K)
    checkpoints/ logs/ pictures/ samples/

Loading executes nothing from a run: weights are safetensors, checkpoints are read as plain
tensors, and a configuration can name registered parts only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anylatent.core.runs.base import Base
from anylatent.core.runs.config import RunConfig, read
from anylatent.core.support.files import (
    UserError,
    check_finite,
    file_name,
    load_metadata,
    load_weights,
    save_text,
    save_weights,
)
from anylatent.core.support.plain_yaml import dump_yaml, load_yaml, plain

FIXED = ("model", "data", "facts", "training", "seed", "source", "take")
"""What two commands that train one run must agree about; all else may change between them."""


RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


@dataclass(frozen=True)
class Stages:
    """The stages that are done, in their order, and whether samples can be drawn by now.

    `normalised`: latents keep the scale that they came with, to which nothing is fitted. `base` is
    what the run leans on. `steps`: how many each stage had. `precision`: of the last one, as a
    trainer has it.
    """

    done: tuple[str, ...] = ()
    ready: bool = False
    normalised: bool = False
    base: Base | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    precision: str = "32-true"

    @classmethod
    def read(cls, metadata: Mapping[str, str], where: Path) -> Stages:
        """From the metadata of a run's weights."""
        done = tuple(name for name in metadata.get("stages", "").split(",") if name)
        ready, normalised = (metadata.get(name) == "yes" for name in ("ready", "normalised"))
        base, precision = Base.read(metadata, where), metadata.get("precision", "32-true")
        return cls(done, ready, normalised, base, _steps(metadata, where), precision)

    def seen_from(self, run: Path) -> Stages:
        """Of a run in another place, which leans on the same base."""
        if self.base is None:
            return self
        return replace(self, base=Base.of(Path(self.base.path), run, self.base.digest))

    def metadata(self) -> dict[str, str]:
        flags = {"ready": self.ready, "normalised": self.normalised}
        found = {name: "yes" if value else "no" for name, value in flags.items()}
        base = {} if self.base is None else {"base": self.base.json()}
        steps = {"steps": json.dumps(dict(self.steps))} if self.steps else {}
        own = {"stages": ",".join(self.done), "precision": self.precision}
        return {**own, **found, **base, **steps}


def _steps(metadata: Mapping[str, str], where: Path) -> dict[str, int]:
    try:
        return {str(name): int(n) for name, n in json.loads(metadata.get("steps", "{}")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"the metadata of {where} have no steps by stage: {error}") from error


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
        return self.path / "checkpoints" / f"{file_name(stage)}.ckpt"

    def finished(self, stage: str) -> Path:
        """What a finished stage goes on from, if it is to have more steps."""
        return self.path / "finished" / f"{file_name(stage)}.ckpt"

    def claim(self, described: Mapping[str, Any]) -> None:
        """Writes the configuration, where it is not there or what may change is another now."""
        if not (self.config_path.exists() and not self.check(described)):
            save_text(self.config_path, dump_yaml(described))

    def check(self, described: Mapping[str, Any]) -> bool:
        """Whether stages are to have more steps than the directory's configuration says, or its
        data have moved. Raises UserError where anything else that may not change differs."""
        found = list(_differences(_fixed(self.plain()), _fixed(plain(described))))
        longer = [key for key, before, after in found if _is_longer(key, before, after)]
        longer += [key for key, *_ in found if key == "data.path"]  # whose items tell what they are
        differences = [
            f"{key.removeprefix('model.')}: {before} there, {after} now"
            for key, before, after in found
            if key not in longer
        ]
        if differences:
            shown = "; ".join(differences[:5]) + (" ..." if len(differences) > 5 else "")
            raise UserError(
                f"{self.path} holds a run with another configuration ({shown}); give run= another "
                "directory, or repeat its settings to continue it"
            )
        return bool(longer)

    def config(self) -> RunConfig:
        """The saved configuration."""
        return read(RunConfig, self.plain(), str(self.config_path))

    def plain(self) -> dict[str, Any]:
        """The saved configuration as plain values."""
        if not self.path.is_dir():
            raise UserError(f"there is no run at {self.path}")
        if not self.config_path.is_file():
            raise UserError(f"{self.path} is no run directory: it has no config.yaml")
        config = load_yaml(self.config_path)
        if not isinstance(config, dict) or "facts" not in config:
            raise UserError(f"{self.config_path} is no configuration of a run, or is cut short")
        targets = list(_targets(config))
        if targets:
            raise UserError(
                f"{self.config_path} asks to construct {', '.join(targets)}, which is refused: a "
                "run may only name registered parts ('anylatent list')"
            )
        return {str(key): value for key, value in config.items()}

    def weights(self) -> tuple[dict[str, Tensor], Stages]:
        """The weights in its own file, and what is done."""
        self.check_weights()
        tensors, metadata = load_weights(self.weights_path)
        check_finite(self.weights_path, tensors)
        return tensors, Stages.read(metadata, self.weights_path)

    def check_weights(self) -> None:
        """Raises UserError where there are none yet."""
        if not self.weights_path.is_file():
            pickles = [
                p.name for e in ("pt", "pth", "bin", "pkl") for p in self.path.glob(f"*.{e}")
            ]
            also = f" ({', '.join(pickles)} would be a pickle, never loaded)" if pickles else ""
            raise UserError(
                f"{self.path} has no model.safetensors{also}: its training is not finished. "
                "Repeat the train command to continue"
            )

    def stages(self) -> Stages:
        """What is done."""
        if not self.weights_path.exists():
            return Stages()
        return Stages.read(load_metadata(self.weights_path), self.weights_path)

    def save(self, tensors: Mapping[str, Tensor], stages: Stages) -> None:
        """Weights after a finished stage, the last of `stages`; its checkpoint goes."""
        if first_process():
            self._check_ahead(stages)
            save_weights(self.weights_path, tensors, stages.metadata())
            self.checkpoint(stages.done[-1]).unlink(missing_ok=True)

    def _check_ahead(self, stages: Stages) -> None:
        """Raises UserError where the run has come further than what is to be saved."""
        further = [name for name in self.stages().done if name not in stages.done]
        if further:
            raise UserError(
                f"{self.weights_path} is ahead of this process, which has not trained "
                f"{', '.join(further)}: somebody else has, and the file is left as it is"
            )


def first_process() -> bool:
    """Whether this is the first of several processes, which alone writes: by their group, or, as
    long as there is none, by the environment that their launcher gave them."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    told = (os.environ.get(name, "") for name in RANKS)
    return next((int(rank) for rank in told if rank.isdigit()), 0) == 0


def _is_longer(key: str, before: Any, after: Any) -> bool:
    """Whether a stage is to have more steps: all else of its training stays."""
    steps = key.startswith("training.") and key.endswith(".steps") and key.count(".") == 2
    return steps and isinstance(before, int) and isinstance(after, int) and after > before


def _fixed(config: Mapping[Any, Any]) -> dict[str, Any]:
    return {key: config.get(key) for key in FIXED}


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
