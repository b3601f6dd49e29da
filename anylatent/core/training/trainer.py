"""What drives a stage: Lightning's trainer as its settings say, and what happens after a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl

from anylatent.core.support.files import UserError
from anylatent.core.training.callbacks import Checkpoint, History, Pictures, Progress, Stop
from anylatent.core.training.events import Events
from anylatent.core.training.finite import Finite
from anylatent.core.training.keeping import Best, KeepEvery
from anylatent.core.training.module import StageModule
from anylatent.core.training.settings import TrainConfig, TrainerConfig
from anylatent.core.training.stages.base import Stage, Training, settings_of, stage_type
from anylatent.core.training.step_sampler import check_shares

OURS = ("compile", "accumulate_grad_batches")
"""Of the settings of the trainer those that are not Lightning's, or that it refuses to others."""


def check(config: TrainConfig, stages: Iterable[str]) -> None:
    """Raises UserError for what no trainer takes, and for batches that do not divide among its
    processes, before any of these is there."""
    world = _trainer(_options(config.trainer)).world_size
    for name in stages:
        batch = settings_of(stage_type(name), config.training).batch
        check_shares(batch, world, config.trainer.accumulate_grad_batches)


def trainer_of(
    training: Training, module: StageModule, checkpoint: Checkpoint, best: Best | None
) -> pl.Trainer:
    """What drives a stage from its step `module.number` on."""
    config, stage, logs = training.config, module.stage, training.directory.path / "logs"
    options = _options(config.trainer)
    options["callbacks"] = _callbacks(training, stage, checkpoint, best)
    options["logger"] = Events(logs, stage.label, module.number)
    found = _trainer(options)
    if found.world_size > 1 and len(stage.optimisers()) > 1:  # a step may use one alone
        found = _trainer({**options, "strategy": "ddp_find_unused_parameters_true"})
    return found


def _options(config: TrainerConfig) -> dict[str, Any]:
    options = {k: v for k, v in asdict(config).items() if k not in OURS}
    return {**options, "precision": config.taken}


def _callbacks(
    training: Training, stage: Stage, checkpoint: Checkpoint, best: Best | None
) -> list[pl.Callback]:
    """What happens after each step, in this order."""
    config, run = training.config, training.directory.path
    every = config.log_every
    history = History(run / "logs" / f"{stage.label}.csv", every)
    pictures = Pictures(config.pictures.every, run / "pictures", history, best)
    finite = Finite(every, checkpoint.path)
    found: list[pl.Callback] = [finite, history, pictures, checkpoint, Stop(every), Progress()]
    kept = config.checkpoint.every
    return [*found, KeepEvery(kept, training)] if kept else found


def _trainer(options: Mapping[str, Any]) -> pl.Trainer:
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    own = {"max_epochs": 1, "log_every_n_steps": 1, "num_sanity_val_steps": 0}
    names = ("checkpointing", "progress_bar", "model_summary")
    off = {f"enable_{name}": False for name in names} | {"use_distributed_sampler": False}
    try:
        return pl.Trainer(**options, **own, **off)  # type: ignore[arg-type]
    except (MisconfigurationException, TypeError) as error:
        raise UserError(f"settings of trainer: {' '.join(str(error).split())}") from error
