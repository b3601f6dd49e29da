"""The two stages as Lightning modules.

Everything random in a step comes from a `Noise` keyed by (seed, stage, step, position), so a run
that stops and goes on ends with the weights of one that did not, and two processes see the noise
that one process with the joint batch would see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from anylatent.core.latents import Noise
from anylatent.core.runs import System
from anylatent.core.training.average import Average
from anylatent.core.training.settings import StageSettings
from anylatent.core.training.step_sampler import StepSampler

Terms = dict[str, Tensor]


class Stage(pl.LightningModule):
    """What both stages share: steps, batches, optimisers, clipping, the average."""

    name: str
    key: int  # sets the noise of the stages apart

    def __init__(
        self,
        system: System,
        dataset: Dataset[Any],
        settings: StageSettings,
        optimizer: Any,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.system, self.dataset, self.settings, self.seed = system, dataset, settings, seed
        self.optimizer_factory = optimizer
        self.step = 0
        self.terms: Terms = {}
        self.average = Average(self.network(), settings.average)
        self.restored: dict[str, Any] | None = None

    def network(self) -> nn.Module:
        """What is trained and averaged."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether some steps leave some parameters without gradient, which plain DDP refuses."""
        return False

    @property
    def told_lengths(self) -> bool:
        """Whether the network is told how long its outputs are. One that has to learn it would
        learn from batches of equal lengths that all end where the batch does."""
        return not self.system.generator.ends

    def collate(self, items: Any) -> Any:
        return items

    def noise(self, step: int) -> Noise:
        return Noise.of((self.seed, self.key, step), list(self.sampler.positions))

    # ---- Lightning ----------------------------------------------------------------------------
    def train_dataloader(self) -> DataLoader[Any]:
        rank, world = self.trainer.global_rank, self.trainer.world_size
        size, batch, steps = len(self.dataset), self.settings.batch, self.settings.steps  # type: ignore[arg-type]
        known = getattr(self.dataset, "lengths", None) if self.told_lengths else None
        self.sampler = StepSampler(size, batch, steps, self.step, self.seed, rank, world, known)
        return DataLoader(
            self.dataset,
            batch_sampler=self.sampler,
            collate_fn=self.collate,
            num_workers=self.settings.workers,
            persistent_workers=self.settings.workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = list(self.optimizer_factory(self.trained_parameters()))
        self.base_rates = [[g["lr"] for g in o.param_groups] for o in optimizers]
        return optimizers

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        return (p for p in self.network().parameters() if p.requires_grad)

    def on_train_start(self) -> None:
        self.average.to(self.device)
        if self.restored is not None:
            self.average.load(self.restored["average"])
            for optimizer, state in zip(
                self.trainer.optimizers, self.restored["optimizers"], strict=True
            ):
                optimizer.load_state_dict(state)
            self.restored = None

    def wrapped(self) -> list[Any]:
        """The optimisers in Lightning's wrappers, always as a list."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def begin(self) -> Noise:
        """Sets the rates and the dropout of this step, and returns its noise."""
        factor = self.settings.rate(self.step)
        for optimizer, rates in zip(self.trainer.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        noise = self.noise(self.step)
        torch.manual_seed(int(noise.uniform()[0] * 2**31))  # dropout knows no other source
        return noise

    def descend(self, loss: Tensor, optimizers: Sequence[Any]) -> Tensor:
        """One step of some of the optimisers; returns the gradient's norm."""
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        parameters = [p for o in optimizers for g in o.param_groups for p in g["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.clip or float("inf"))
        for optimizer in optimizers:
            optimizer.step()
        return norm

    def finish(self, terms: Terms) -> None:
        self.average.update(self.step)
        self.terms = {name: value.detach().float().mean() for name, value in terms.items()}
        self.step += 1

    # ---- checkpoints --------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "system": {k: v for k, v in self.system.state_dict().items()},
            "average": self.average.state(),
            "optimizers": [o.state_dict() for o in self.trainer.optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state; the optimisers follow when training starts."""
        self.step = int(state["step"])
        self.system.load_state_dict(state["system"])
        self.restored = state
