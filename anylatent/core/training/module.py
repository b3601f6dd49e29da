"""A stage as a Lightning module: steps, batches, optimisers, clipping, the average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from anylatent.core.modality import move
from anylatent.core.registry import build
from anylatent.core.support.files import UserError
from anylatent.core.training.average import Average
from anylatent.core.training.stages.base import Stage, Terms
from anylatent.core.training.step_sampler import StepSampler


class StageModule(pl.LightningModule):
    """Drives a stage, whatever it is, from its step `number` on."""

    def __init__(self, stage: Stage, dataset: Dataset[Any]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.system, self.trained = stage.system, nn.ModuleDict(stage.networks())
        self.stage, self.dataset, self.settings = stage, dataset, stage.settings
        self.number = 0
        self.terms: Terms = {}
        self.gathered: list[Terms] = []
        self.norms: Terms = {}
        self.average = Average(self.trained, stage.settings.average)
        self.restored: Mapping[str, Any] | None = None

    # ---- Lightning ----------------------------------------------------------------------------
    def train_dataloader(self) -> DataLoader[Any]:
        rank, world = self.trainer.global_rank, self.trainer.world_size
        size, batch, steps = len(self.dataset), self.settings.batch, self.settings.steps  # type: ignore[arg-type]
        known = getattr(self.dataset, "lengths", None) if self.stage.told_lengths else None
        seed = self.stage.training.config.seed
        parts = self.stage.training.config.trainer.accumulate_grad_batches
        self.sampler = StepSampler(size, batch, steps, self.number, seed, rank, world, known, parts)
        return DataLoader(
            self.dataset,
            batch_sampler=self.stage.sampler(self.sampler),
            collate_fn=self.stage.collate,
            num_workers=self.settings.workers,
            persistent_workers=self.settings.workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        factory = build("optimizer", self.settings.optimizer)
        self.places: dict[str, list[int]] = {}
        found: list[torch.optim.Optimizer] = []
        for name, parameters in self.stage.optimisers().items():
            own = factory(parameters)
            self.places[name] = list(range(len(found), len(found) + len(own)))
            found += own
        self.base_rates = [[g["lr"] for g in o.param_groups] for o in found]
        return found

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        if isinstance(batch, Mapping):
            return move(batch, device)
        # Lightning would wait for whatever is not a plain tensor
        if isinstance(batch, tuple):
            return tuple(x if x is None else x.to(device, non_blocking=True) for x in batch)
        return batch.to(device, non_blocking=True)

    def on_train_start(self) -> None:
        self.average.to(self.device)
        if self.restored is not None:
            with _fitting(self.stage.label):
                self._restore_optimisers(self.restored)
            self.restored = None

    def _restore_optimisers(self, state: Mapping[str, Any]) -> None:
        self.average.load(state["average"])
        for optimizer, own in zip(self.trainer.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)

    def training_step(self, batch: Any, index: int) -> None:
        """One part of a step's batch; with the last one the step is done."""
        factor = self.settings.rate(self.number)
        for optimizer, rates in zip(self.trainer.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        noise = self.stage.noise(self.number, list(self.sampler.shares[len(self.gathered)]))
        torch.manual_seed(int(noise.uniform()[0] * 2**31))  # dropout knows no other source
        terms = self.stage.step(batch, noise, self.number, self._descend)
        self.gathered.append({name: value.detach().float().mean() for name, value in terms.items()})
        if len(self.gathered) < len(self.sampler.shares):
            return
        self.average.update(self.number)
        means = {n: torch.stack([part[n] for part in self.gathered]).mean() for n in terms}
        self.terms, self.gathered, self.norms = {**means, **self.norms}, [], {}
        self.number += 1

    def _descend(self, name: str, loss: Tensor) -> None:
        """One step of the optimisers of this name, once all parts of the batch gave gradients."""
        wrapped = self.optimizers()
        every = wrapped if isinstance(wrapped, list) else [wrapped]
        optimizers = [every[place] for place in self.places[name]]
        others = [o for place, o in enumerate(every) if place not in self.places[name]]
        if not self.gathered:
            for optimizer in optimizers:
                optimizer.zero_grad()
        with _spared(_parameters(others)):
            self.manual_backward(loss / len(self.sampler.shares))
        if len(self.gathered) + 1 < len(self.sampler.shares):
            return
        parameters = _parameters(optimizers)
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.clip or float("inf"))
        self.norms["gradient" if name == "all" else f"{name}_gradient"] = norm.detach()
        for optimizer in optimizers:
            optimizer.step()

    # ---- checkpoints --------------------------------------------------------------------------
    def checkpoint(self) -> dict[str, Any]:
        """All that training goes on from, but for what is the base's."""
        leaning = self.stage.training.leaning
        return {
            "step": self.number,
            "made_by": self.stage.made_by,
            "tuning": dict(self.stage.training.config.tuning),
            "base": None if leaning is None else leaning.base.digest,
            "system": self.stage.training.own(self.system.state_dict()),
            "networks": {name: net.state_dict() for name, net in self._own().items()},
            "average": self.average.state(),
            "optimizers": [o.state_dict() for o in self.trainer.optimizers],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint; the optimisers follow when training starts."""
        with _fitting(self.stage.label):
            self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state["made_by"] != self.stage.made_by:
            raise UserError(
                f"the run's checkpoint {self.stage.label}.ckpt was begun with other settings of "
                f"the {self.stage.name}: repeat them to continue it, or remove it to start anew"
            )
        _check_origin(self.stage, state)
        self.number = int(state["step"])
        self.system.load_state_dict({**self.system.state_dict(), **state["system"]})
        for name, network in self._own().items():
            network.load_state_dict(state["networks"][name])
        self.restored = state

    def _own(self) -> dict[str, nn.Module]:
        """What is trained but is no part of the system."""
        known = set(self.system.modules())
        return {name: net for name, net in self.stage.networks().items() if net not in known}


def _check_origin(stage: Stage, state: Mapping[str, Any]) -> None:
    """Raises UserError where a checkpoint was begun with another tuning, or on another base."""
    training, label = stage.training, stage.label
    leaning = training.leaning
    if state.get("tuning", {"name": "all"}) != dict(training.config.tuning):
        raise UserError(
            f"the run's checkpoint {label}.ckpt was begun with tuning={state['tuning']}, not "
            f"{dict(training.config.tuning)}: repeat it, or remove the checkpoint to start the "
            "stage anew"
        )
    if state.get("base") != (None if leaning is None else leaning.base.digest):
        raise UserError(
            f"the run's checkpoint {label}.ckpt leans on the weights {state['base']}, and "
            "those of its base are others by now: put them back, or remove the checkpoint to "
            "start the stage anew"
        )


def _parameters(optimizers: Sequence[Any]) -> list[nn.Parameter]:
    return [p for optimizer in optimizers for g in optimizer.param_groups for p in g["params"]]


@contextmanager
def _spared(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """The gradients that these have are those that they had before, at the end of the block."""
    kept = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient


@contextmanager
def _fitting(label: str) -> Iterator[None]:
    """Raises UserError where a checkpoint is not of this stage, whatever it has."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise UserError(
            f"the run's checkpoint {label}.ckpt is of something else than this "
            f"stage, or damaged ({type(error).__name__}: {told}): remove it to start the stage "
            "anew"
        ) from error
