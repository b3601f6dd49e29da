"""What happens around the steps: progress, logs, checkpoints, pictures, a clean stop."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from anylatent.core.support.files import UserError, replacing, save_text
from anylatent.core.training.callback import StageCallback
from anylatent.core.training.finite import check_weights
from anylatent.core.training.keeping import Best
from anylatent.core.training.module import StageModule


class Progress(StageCallback):
    """A bar with loss, rate and remaining time; where there is no terminal, a line now and then."""

    def __init__(self, seconds: float = 20.0) -> None:
        self.seconds = seconds
        self.bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        self.start, self.first, self.last = time.monotonic(), module.number, 0.0
        if not trainer.is_global_zero:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        console = Console(stderr=True)
        if not console.is_terminal:
            return
        text = TextColumn("{task.fields[text]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), text)
        self.bar = Progress(*columns, Remaining(), console=console)
        self.task = self.bar.add_task(
            module.stage.label, total=module.settings.steps, completed=module.number, text=""
        )
        self.bar.start()

    def after_step(self, trainer: pl.Trainer, module: StageModule) -> None:
        now, steps = time.monotonic(), module.settings.steps
        pause = 0.5 if self.bar is not None else self.seconds
        if now - self.last < pause and module.number < steps:
            return
        self.last = now
        rate = (module.number - self.first) / max(now - self.start, 1e-9)
        text = f"loss {float(module.terms['loss']):.4f}, {rate:.1f} steps/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=module.number, text=text)
        else:
            left = (steps - module.number) / max(rate, 1e-9)
            print(
                f"{module.stage.label} {module.number}/{steps}: {text}, {left:.0f} s left",
                flush=True,
            )

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, _: Any) -> None:
        self.teardown(trainer, module, "fit")


class History(StageCallback):
    """The mean of each term since the last row, to CSV and TensorBoard, every `every` steps."""

    everywhere = True  # the mean is over all processes

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.sums: dict[str, torch.Tensor] = {}
        self.count, self.rows = 0, list[dict[str, str]]()
        self.broken = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        self.since = time.monotonic()
        if self.path.exists():  # rows that a killed run wrote after its last checkpoint go
            with open(self.path, newline="", encoding="utf-8") as file:
                self.rows = [r for r in csv.DictReader(file) if int(r["step"]) <= module.number]

    def after_step(self, trainer: pl.Trainer, module: StageModule) -> None:
        for name, value in module.terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1
        if module.number % self.every and module.number < module.settings.steps:
            return
        means = {k: float(trainer.strategy.reduce(v / self.count)) for k, v in self.sums.items()}
        rate = self.count / max(time.monotonic() - self.since, 1e-9)
        means |= {"steps_per_second": rate, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        means |= module.stage.report()
        self.sums, self.count, self.since = {}, 0, time.monotonic()
        if trainer.is_global_zero:
            self.write(trainer, module.number, means)

    def write(self, trainer: pl.Trainer, step: int, values: Mapping[str, float]) -> None:
        self.rows.append({"step": str(step), **{k: f"{v:.8g}" for k, v in values.items()}})
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [",".join(names)]
        lines += [",".join(row.get(name, "") for name in names) for row in self.rows]
        try:
            save_text(self.path, "\n".join(lines) + "\n")
        except UserError as error:  # training goes on; rows are written again later
            if not self.broken:
                print(f"warning: {error}; training goes on, with gaps in its logs", flush=True)
            self.broken = True
        if trainer.logger is not None:
            trainer.logger.log_metrics(dict(values), step=step)


class Checkpoint(StageCallback):
    """The whole state of a stage, every `seconds` and at the end; whole or not there."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.last = time.monotonic()

    def after_step(self, trainer: pl.Trainer, module: StageModule) -> None:
        if time.monotonic() - self.last < self.seconds or module.number == module.settings.steps:
            return
        self.last = time.monotonic()
        check_weights(module, self.path)
        self.save_or_warn(module)

    def save_or_warn(self, module: StageModule) -> None:
        """Training goes on where it can't be written; the last one is still there."""
        try:
            self.save(module)
        except UserError as error:
            print(f"warning: {error}", flush=True)

    def save(self, module: StageModule) -> None:
        with replacing(self.path) as temporary:
            torch.save(module.checkpoint(), temporary)


class Stop(StageCallback):
    """Ctrl-C (or SIGTERM) ends the stage after the current step; a second one at once. Processes on
    several GPUs ask one another every `every` steps, so that not every step waits for all."""

    everywhere = True

    def __init__(self, every: int) -> None:
        self.asked, self.every = False, every
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def after_step(self, trainer: pl.Trainer, module: StageModule) -> None:
        several = trainer.world_size > 1 and module.device.type != "cpu"
        if several and module.number % self.every:
            return
        if trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            trainer.should_stop = True  # in all processes after the same step

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, _: Any) -> None:
        self.on_train_end(trainer, module)


class Pictures(StageCallback):
    """Held-out figures and pictures every `every` steps and at the end, with averaged weights."""

    def __init__(self, every: int, folder: Path, rows: History, best: Best | None) -> None:
        self.every, self.folder, self.rows, self.best = every, folder, rows, best

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        if trainer.is_global_zero and self.best is not None and self.best.unmeasured:
            with self._measured(trainer, module):
                pass

    def after_step(self, trainer: pl.Trainer, module: StageModule) -> None:
        number, last = module.number, module.settings.steps
        if not self.every or (number % self.every and number < last):
            return
        self.folder.mkdir(exist_ok=True)
        with self._measured(trainer, module) as figures:
            module.stage.draw(self.folder, number)
        if figures:
            self.rows.write(trainer, number, figures)

    @contextmanager
    def _measured(self, trainer: pl.Trainer, module: StageModule) -> Iterator[Mapping[str, float]]:
        """The held-out figures, with the averaged weights in the block."""
        module.trained.eval()
        with torch.no_grad(), module.average.applied(), trainer.precision_plugin.forward_context():
            figures = module.stage.figures()
            if self.best is not None:
                self.best.offer(module, figures)
            yield figures
        module.trained.train()
