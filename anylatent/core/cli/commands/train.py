"""`anylatent train`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import make_dataclass
from typing import TYPE_CHECKING, Any

from anylatent.core.cli.command import USUAL, Command
from anylatent.core.registry import register

if TYPE_CHECKING:
    from anylatent.core.training.settings import TrainConfig


@register("command", "train")
class Train(Command):
    """Trains the autoencoder, then the diffusion model; again, it goes on where it stopped."""

    usage = """\
train modality=image run=runs/emoji [overrides]
    trains the autoencoder, then the diffusion model; the same command continues a stopped run;
    from=runs/emoji run=runs/mine data=folder data.path=mine [tuning=matching tuning.pattern=up]
    starts from a run instead of anew"""
    choices = {
        "schedule": "flow",
        "prediction": "velocity",
        "times": "logit_normal",
        "weighting": "simple",
        "objective": "denoising",
        "denoiser": "preconditioned",
        "generator": "diffusion",
        "conditioner": "none",
        "autoencoder": "conv",
        "backbone": "unet",
        "data": "openmoji",
        **USUAL,
        "tuning": "all",
        "modality": "image",
    }
    defaults = {"run": "runs/default", "steps": 20}
    late = ("modality", "experiment")

    @property
    def config(self) -> type:
        from anylatent.core.training.settings import TrainConfig

        return TrainConfig

    def nested(self) -> Mapping[str, tuple[type, Mapping[str, str]]]:
        from anylatent.core.registry import names
        from anylatent.core.training.stages.base import stage_type

        stages = {name: stage_type(name) for name in names("stage")}
        own = {name: kind for name, kind in stages.items() if kind.told_as is None}
        inner = {"optimizer": "adamw"}
        found = {f"training.{name}": (kind.settings_type, inner) for name, kind in own.items()}
        fields: list[Any] = [(name, Any, None) for name in own]
        return {"training": (make_dataclass("training", fields), {}), **found}

    def run(self, config: TrainConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        from anylatent.core.cli.continuing import continued
        from anylatent.core.cli.overrides import key_of
        from anylatent.core.training.loop import train

        if HydraConfig.initialized():
            task = HydraConfig.get().overrides.task
            typed = [key_of(item) for item in task if not item.endswith("=own")]  # the run's
            config = continued(config, [key.partition("@")[2] or key for key in typed])
        path, how = train(config), ""
        if config.stage == "classifier":
            how = f" guidance=classifier guidance.scale=2 cond.{config.classifier.label}=..."
        again = shlex.quote(f"run={path}")
        print(f"trained: {path}. Next: anylatent sample {again}{how}")
