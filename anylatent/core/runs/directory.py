"""A run directory: what training leaves behind, and all that sampling needs.

    config.yaml          what it is made from: model, data and their facts, sampling, training
    model.safetensors    averaged weights; its metadata say which stages are done, and what the run
                         leans on for weights that are not in it
    classifiers/         of noisy latents, one for a label, where some were trained
    checkpoints/ logs/ pictures/ samples/

Loading executes nothing from a run: weights are safetensors, checkpoints are read as plain
tensors, and a configuration can name registered parts only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anylatent.core.runs.base import Base
from anylatent.core.runs.config import RunConfig, read
from anylatent.core.support.files import (
    UserError,
    load_metadata,
    load_weights,
    save_text,
    save_weights,
)

FIXED = ("model", "data", "facts", "training", "seed", "source", "take")
"""What two commands that train one run must agree about; all else may change between them."""


@dataclass(frozen=True)
class Stages:
    """The stages that are done, in their order, and whether samples can be drawn by now.

    `normalised`: latents keep the scale that they came with, to which nothing is fitted. `base` is
    what the run leans on.
    """

    done: tuple[str, ...] = ()
    ready: bool = False
    normalised: bool = False
    base: Base | None = None

    @classmethod
    def read(cls, metadata: Mapping[str, str], where: Path) -> Stages:
        """From the metadata of a run's weights."""
        done = tuple(name for name in metadata.get("stages", "").split(",") if name)
        ready, normalised = (metadata.get(name) == "yes" for name in ("ready", "normalised"))
        return cls(done, ready, normalised, Base.read(metadata, where))

    def metadata(self) -> dict[str, str]:
        flags = {"ready": self.ready, "normalised": self.normalised}
        found = {name: "yes" if value else "no" for name, value in flags.items()}
        base = {} if self.base is None else {"base": self.base.json()}
        return {"stages": ",".join(self.done), **found, **base}


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

    def claim(self, described: Mapping[str, Any]) -> None:
        """Writes the configuration, or checks that the directory holds the same one."""
        from omegaconf import OmegaConf

        new = OmegaConf.create(dict(described))
        if not self.config_path.exists():
            save_text(self.config_path, OmegaConf.to_yaml(new))
            return
        old, plain = self._plain(), OmegaConf.to_container(new)
        assert isinstance(plain, dict)
        differences = [
            f"{key.removeprefix('model.')}: {before} there, {after} now"
            for key, before, after in _differences(_fixed(old), _fixed(plain))
        ]
        if differences:
            shown = "; ".join(differences[:5]) + (" ..." if len(differences) > 5 else "")
            raise UserError(
                f"{self.path} holds a run with another configuration ({shown}); give run= another "
                "directory, or repeat its settings to continue it"
            )

    def config(self) -> RunConfig:
        """The saved configuration."""
        return read(RunConfig, self._plain(), str(self.config_path))

    def _plain(self) -> dict[str, Any]:
        """The saved configuration as plain values."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError  # type: ignore[import-untyped]

        if not self.path.is_dir():
            raise UserError(f"there is no run at {self.path}")
        if not self.config_path.is_file():
            raise UserError(f"{self.path} is no run directory: it has no config.yaml")
        try:
            config = OmegaConf.to_container(OmegaConf.load(self.config_path), resolve=False)
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

    def weights(self) -> tuple[dict[str, Tensor], Stages]:
        """The weights in its own file, and what is done."""
        self.check_weights()
        tensors, metadata = load_weights(self.weights_path)
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
            save_weights(self.weights_path, tensors, stages.metadata())
            self.checkpoint(stages.done[-1]).unlink(missing_ok=True)

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
