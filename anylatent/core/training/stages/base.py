"""Stages of training: what each one needs, which networks it trains, and on what.

A stage is a part, `@register("stage", "mine")`; `anylatent train stage=mine` runs it. It knows no
Lightning: the loop (`training.module`) asks it for data, networks and the parameters of each
optimiser, and calls `step`.

Everything random in a step comes from a `Noise` keyed by (seed, stage, step, position), so a run
that stops and goes on ends with the weights of one that did not, and two processes see the noise
that one process with the joint batch would see.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from anylatent.core.latents import Noise, Stream
from anylatent.core.modality import Data, move
from anylatent.core.registry import get, group
from anylatent.core.runs import RunDirectory, Stages, System, read
from anylatent.core.runs.sources import Leaning, Tuning
from anylatent.core.support.files import UserError
from anylatent.core.training.settings import StageSettings, TrainConfig
from anylatent.core.training.step_sampler import StepSampler

Terms: TypeAlias = dict[str, Tensor]
"""Named values of a step, () or (B,), to be logged."""

Descend: TypeAlias = Callable[[str, Tensor], None]
"""An optimiser by name and a loss, () → one step down, of which the loop logs the gradient's norm.
Where a step's batch comes in parts, their gradients are gathered, and the last one steps."""


@dataclass
class Training:
    """One run that is trained: what it is told, its directory, data and model."""

    config: TrainConfig
    directory: RunDirectory
    data: Data
    system: System
    done: Stages
    tuning: Tuning
    leaning: Leaning | None = None
    generates: bool = False
    """Whether a trained generator came with the autoencoder that is tuned."""
    longer: tuple[str, ...] = ()
    """Of the stages that are done those that are to have more steps."""

    def left(self, name: str) -> bool:
        """Whether a stage, or a part of one, is still to be trained."""
        return name not in self.done.done or name in self.longer

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those that the run must save: all, where it leans on no base."""
        return dict(tensors) if self.leaning is None else self.leaning.own(tensors)

    def after(self, stage: Stage, steps: int) -> Stages:
        """What is done once a stage has had so many steps."""
        before = self.done
        completed = stage.completes and stage.name in stage.notes
        ready = before.ready or completed or self.generates
        new = [name for name in stage.notes if name not in before.done]
        had = {**before.steps, **dict.fromkeys(stage.notes, steps)}
        precision = self.config.trainer.taken
        return replace(
            before, done=(*before.done, *new), ready=ready, steps=had, precision=precision
        )

    def save(self) -> None:
        """Writes weights as they are now, and which stages are done."""
        self.directory.save(self.own(self.system.trained()), self.done)

    def held_out(self, count: int) -> Mapping[str, Any]:
        """The first items that no training sees, as a batch on the model's device."""
        dataset: Any = self.data.held_out()
        items = [dataset[i] for i in range(min(count, len(dataset)))]
        return move(self.system.modality.collate(items), self.system.device)


class Stage(ABC):
    """One stage of training a run.

    `needs` names the stages that must be done before. `completes`: samples can be drawn once it is
    done. `further`: it is run beside a finished run, whose settings it takes, and may be run again.
    `told_lengths`: its network is told how long outputs are; one that has to learn it would learn
    from batches of equal lengths that all end where the batch does.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    completes: ClassVar[bool] = False
    further: ClassVar[bool] = False
    settings_type: ClassVar[type[StageSettings]] = StageSettings
    name: ClassVar[str]
    told_as: ClassVar[str | None] = None
    """The stage whose settings it shares, `training.NAME`; by default they are its own."""
    stream: ClassVar[int | None] = None
    """Keeps its noise apart from that of others; by default a digest of its name."""
    made_by: str = ""
    """What a checkpoint of it must agree about, beside the run's configuration."""

    def __init__(self, training: Training, settings: StageSettings) -> None:
        self.training, self.settings = training, settings
        self.system, self.label = training.system, self.name
        self.told_lengths = not training.system.generator.draws_sizes

    def noise(self, number: int, positions: Sequence[int]) -> Noise:
        """Of step `number`, for these places in the joint batch of all processes."""
        stream = Stream.of(self.name) if self.stream is None else self.stream
        return Noise.of((self.training.config.seed, stream, number), positions)

    # ---- what is trained ----------------------------------------------------------------------
    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """What is trained and averaged. Those that are not part of the system are kept in its
        checkpoints too."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is noted in the run once it is done: its name, without which it is run again, for
        what is left of it; before that, the labels of its parts that are done."""
        return (self.name,)

    def optimisers(self) -> dict[str, Iterable[nn.Parameter]]:
        """The parameters that learn, by a name for `step` of the optimiser that each has; by
        default all of the networks have one. Where there are several, a step need not use all."""
        return {"all": learning(self.networks().values())}

    # ---- on what ------------------------------------------------------------------------------
    @abstractmethod
    def dataset(self) -> Dataset[Any]:
        """What batches are drawn from; one with `lengths` is batched by length where
        `told_lengths`. A batch may be named tensors and others, or a tuple of what has `to`."""

    def sampler(self, steps: StepSampler) -> Sampler[Any]:
        """The batches of indices that the data set is asked for, by those of the items."""
        return steps

    def collate(self, items: Any) -> Any:
        return items

    # ---- how ----------------------------------------------------------------------------------
    @abstractmethod
    def step(self, batch: Any, noise: Noise, number: int, descend: Descend) -> Terms:
        """One step of training, number 0, 1, ...: computes losses and descends them."""

    def report(self) -> dict[str, float]:
        """Figures for a row of the log that are not those of a step."""
        return {}

    def figures(self) -> dict[str, float]:
        """Figures of held-out data, with the averaged weights. `held_out_loss`, where it is among
        them, is what `checkpoint.keep=best` chooses by."""
        return {}

    def draw(self, folder: Path, number: int) -> None:  # noqa: B027 - there may be none
        """Pictures of what it has learned so far, into a folder."""

    def finish(self) -> None:  # noqa: B027 - there may be nothing to do
        """After the last step, in the first process, with the averaged weights on the CPU; what
        the run keeps of the system is saved after it."""


def learning(networks: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of networks that learn."""
    return [p for network in networks for p in network.parameters() if p.requires_grad]


def settings_of(kind: type[Stage], training: Mapping[str, Mapping[str, Any]]) -> StageSettings:
    """The settings of a stage, among those of all stages. Raises UserError for what is none."""
    place = f"training.{kind.told_as or kind.name}"
    try:
        return read(kind.settings_type, training[kind.told_as or kind.name], place, strict=True)
    except ValueError as error:
        raise UserError(f"{place}.{error}") from error


def stage_type(name: str) -> type[Stage]:
    """The class of a registered stage."""
    found = get("stage", name)
    assert isinstance(found, type) and issubclass(found, Stage)
    return found


group("stage", Stage, offers={"training": Training, "settings": StageSettings}, chosen=False)
