"""Numbers that are not finite end training: they never get into what is kept."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch

from anylatent.core.support.files import UserError
from anylatent.core.training.callback import StageCallback
from anylatent.core.training.module import StageModule

NEVER = 2**31 - 1
"""A step that no training reaches."""


class Finite(StageCallback):
    """Ends training at the first step that has a loss or gradient which is not finite.

    On a GPU it looks every `every` steps, so that no step waits for the device; what is saved in
    between is looked at by itself (`check_weights`).
    """

    everywhere = True

    def __init__(self, every: int, kept: Path) -> None:
        self.every, self.kept = every, kept
        self.first: torch.Tensor | None = None

    def after_step(self, trainer: pl.Trainer, module: StageModule) -> None:
        wrong = torch.stack([~value.isfinite() for value in module.terms.values()]).any()
        number = torch.where(wrong, module.number, NEVER)
        self.first = number if self.first is None else torch.minimum(self.first, number)
        last = module.number == module.settings.steps
        if module.device.type == "cpu" or last or module.number % self.every == 0:
            self._check(trainer, module, int(self.first))

    def _check(self, trainer: pl.Trainer, module: StageModule, first: int) -> None:
        if not trainer.strategy.reduce_boolean_decision(first < NEVER, all=False):
            return
        names = [name for name, value in module.terms.items() if not value.isfinite()]
        where = f"at step {first}" if first < NEVER else "in another process"
        raise UserError(not_finite(module, f"{', '.join(names) or 'loss'} {where}", self.kept))


def check_weights(module: StageModule, kept: Path) -> None:
    """Raises UserError where weights that learn, or their averages, are not finite."""
    named = [(n, p) for n, p in module.trained.named_parameters() if p.requires_grad]
    every = [*(p for _, p in named), *module.average.shadow]
    fine = torch.stack([value.isfinite().all() for value in every]).tolist()
    wrong = [name for (name, _), good in zip(named * 2, fine, strict=True) if not good]
    if wrong:
        raise UserError(not_finite(module, f"the weight {wrong[0]} at step {module.number}", kept))


def not_finite(module: StageModule, what: str, kept: Path) -> str:
    """What went wrong, what is kept of the stage, and what may help."""
    have = "there is no checkpoint of this stage yet"
    if kept.exists():
        have = f"{kept.name} has the last one that was finite, from which the same command goes on"
    stage = module.stage.told_as or module.stage.name
    return (
        f"{module.stage.label}: {what} is not finite, and training has ended; {have}. Try, in "
        f"another run=, a smaller training.{stage}.optimizer.lr (now "
        f"{module.settings.optimizer.get('lr')}), a longer warmup (now {module.settings.warmup}), "
        f"or another clip (now {module.settings.clip:g}; 0 is none); from= this one takes over "
        "what it has finished"
    )
