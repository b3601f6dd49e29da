"""What is kept of a stage's weights beside the last ones: the best so far, or some on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from anylatent.core.runs import RunDirectory
from anylatent.core.runs.records import Learned
from anylatent.core.support.files import UserError, load_checkpoint, replacing, save_text
from anylatent.core.training.callback import StageCallback
from anylatent.core.training.module import StageModule
from anylatent.core.training.stages.base import Training


def best_of(run: RunDirectory, stage: str) -> Path:
    """Where the weights of a stage with the lowest held-out loss so far are, if they are kept."""
    return run.finished(f"{stage}_best")


class Best:
    """The averaged weights of a stage whose held-out loss was the lowest, in a file of the run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loss = float("inf")
        self.unmeasured = False

    def begin(self, module: StageModule, done: bool = False) -> None:
        """Goes on with what the run has, unless that was found after the step gone on from. Weights
        of a stage that was `done` are the first to be measured, if none are kept of it."""
        found = self._load() if self.path.exists() else None
        if found is not None and found["step"] <= module.number:
            self.loss = float(found["loss"])
        self.unmeasured = done and self.loss == float("inf")

    def offer(self, module: StageModule, figures: Mapping[str, float]) -> None:
        """Keeps the weights that the networks have now, if none had a lower loss. Where the file
        can't be written training goes on, with a warning."""
        loss = figures.get("held_out_loss")
        if loss is None or not loss < self.loss:
            return
        state = {"step": module.number, "loss": loss, "weights": module.trained.state_dict()}
        try:
            with replacing(self.path) as temporary:
                torch.save(state, temporary)
            self.loss = loss
        except UserError as error:
            print(f"warning: {error}", flush=True)

    def take(self, module: StageModule, says: bool) -> None:
        """Gives a stage that is done the best weights, not the last ones, in all processes."""
        told = "its last weights are kept: no held-out loss, by which keep=best chooses, was told"
        if self.path.exists():
            found = self._load()
            try:
                module.trained.load_state_dict(found["weights"])
            except RuntimeError as error:
                raise UserError(f"{self.path} is of another model: {error}") from None
            told = f"the weights of step {found['step']} are kept, whose held-out loss of "
            told += f"{found['loss']:.4f} was the lowest"
        if says:
            print(f"{module.stage.label}: {told}", flush=True)

    def _load(self) -> dict[str, Any]:
        found = load_checkpoint(self.path)
        missing = [key for key in ("step", "loss", "weights") if key not in found]
        if missing:
            raise UserError(f"{self.path} has no {missing[0]}: remove it to choose anew")
        return found


class KeepEvery(StageCallback):
    """Every so many steps a run of its own with the averaged weights, in kept/ of the run."""

    def __init__(self, every: int, training: Training) -> None:
        self.every, self.training = every, training

    def after_step(self, trainer: pl.Trainer, module: StageModule) -> None:
        if module.number % self.every or module.number == module.settings.steps:
            return
        with module.average.applied():
            try:
                keep(self.training, module)
            except UserError as error:  # training goes on
                print(f"warning: {error}", flush=True)


def keep(training: Training, module: StageModule) -> None:
    """Writes a run that has what the stage is by now."""
    run, stage = training.directory, module.stage
    kept = RunDirectory(run.path / "kept" / f"{stage.label}_{module.number:06d}")
    save_text(kept.config_path, run.config_path.read_text(encoding="utf-8"))
    items = Learned.load(run.path)
    if items is not None:
        items.save(kept.path)
    done = training.after(stage, module.number).seen_from(kept.path)
    kept.save(training.own(training.system.trained()), done)
