"""What training is told: how each stage learns, and what is common to all of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from anylatent.core.runs import ModelConfig, Node, RunConfig, SamplingConfig, inline
from anylatent.core.runs.sources import Origin
from anylatent.core.support.hardware import has_bfloat16

PRECISIONS = ("32-true", "32", "bf16-mixed", "auto")


@dataclass(frozen=True)
class StageSettings:
    """`batch` is the joint batch of a step: of all processes, in all the parts that
    `trainer.accumulate_grad_batches` takes it in. The learning rate rises over `warmup` steps,
    stays, and falls over the last `decay` fraction of the steps along half a cosine. `clip` is the
    largest norm of the gradient, 0 for none, `average` the decay of the weights' moving average,
    `workers` the number of processes that load data."""

    optimizer: Node = field(default_factory=lambda: {"name": "adamw"})
    steps: int = 1000
    batch: int = 64
    warmup: int = 100
    decay: float = 1.0
    clip: float = 1.0
    average: float = 0.999
    workers: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0), ("clip", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: {least} is the least")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay={self.decay}: it is a part of the steps, from 0 to 1")
        if not 0 <= self.average < 1:
            raise ValueError(f"average={self.average}: from 0, for none, to less than 1")

    def rate(self, step: int) -> float:
        """The factor of the learning rate at a step."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        start = self.steps * (1 - self.decay)
        if step <= start:
            return rise
        return rise * 0.5 * (1 + math.cos(math.pi * (step - start) / (self.steps - start)))


@dataclass(frozen=True)
class GeneratorSettings(StageSettings):
    """Of stages that train the generator: `drop` is how often each condition is dropped."""

    drop: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop={self.drop}: how often, from 0 to less than 1")


@dataclass(frozen=True)
class TrainerConfig:
    """On what a stage is trained, as pytorch_lightning.Trainer has it, but for `compile`.

    `accelerator`: auto, cpu or gpu. `devices`: how many of each node, or a list of their numbers;
    `num_nodes`: how many nodes. `strategy`: auto or ddp, how they work together. `precision`:
    32-true, bf16-mixed, or auto, which is bf16-mixed where the hardware computes in bfloat16.
    `accumulate_grad_batches`: in how many parts, one after the other, each process takes its share
    of a step's batch: in so much less memory the gradient is that of the whole batch, but for what
    a loss finds out from all of a batch, such as the weight of an adversary.
    `max_time`: days:hours:minutes:seconds, after which a stage stops; the same command goes on.
    `compile`: torch.compile of the backbones.
    """

    accelerator: str = "auto"
    devices: Any = "auto"
    strategy: str = "auto"
    num_nodes: int = 1
    precision: Any = "32-true"
    accumulate_grad_batches: int = 1
    max_time: str | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        if str(self.precision).startswith("16"):
            raise ValueError(
                f"trainer.precision={self.precision} needs loss scaling, which is not there: use "
                "32-true, bf16-mixed or auto"
            )
        if str(self.precision) not in PRECISIONS:
            raise ValueError(
                f"trainer.precision={self.precision}: there are {', '.join(PRECISIONS)}"
            )
        if self.strategy not in ("auto", "ddp"):
            raise ValueError(
                f"trainer.strategy={self.strategy}: processes work together by auto or ddp"
            )
        if self.accumulate_grad_batches < 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches={self.accumulate_grad_batches}: a batch comes in "
                "1 part or more"
            )
        time = r"\d+:([01]\d|2[0-3]):[0-5]\d:[0-5]\d"
        if self.max_time is not None and (
            not re.fullmatch(time, self.max_time) or not self.max_time.strip("0:")
        ):
            raise ValueError(
                f"trainer.max_time={self.max_time} must be days:hours:minutes:seconds, such as "
                "00:12:00:00, and a second at least"
            )

    @property
    def taken(self) -> str:
        """The precision that is meant on this machine."""
        if self.precision != "auto":
            return "32-true" if str(self.precision) == "32" else str(self.precision)
        on_gpu = self.accelerator != "cpu" and torch.cuda.is_available()
        return "bf16-mixed" if has_bfloat16("cuda" if on_gpu else "cpu") else "32-true"


@dataclass(frozen=True)
class PicturesConfig:
    """`samples` pictures every so many steps; 0 for none. Those of a model that learns to complete
    data are held-out data that it completed, and what was given is in them."""

    every: int = 500
    samples: int = 16

    def __post_init__(self) -> None:
        if self.every < 0 or self.samples < 1:
            raise ValueError(
                f"pictures.every={self.every} and pictures.samples={self.samples}: the least are "
                "0, for none, and 1"
            )


@dataclass(frozen=True)
class CheckpointConfig:
    """`seconds` lie between two of those that a stage goes on from after a stop.

    `keep`: the weights that are left when a stage is done. `last`: those of the last step. `best`:
    those of the step with the lowest held-out loss, which is measured every `pictures.every`.
    `every:K`: the last ones, and those of every K steps on the way, each as a run of its own in the
    run's kept/.
    """

    seconds: float = 60
    keep: str = "last"

    def __post_init__(self) -> None:
        if self.seconds < 0:
            raise ValueError(f"checkpoint.seconds={self.seconds}: 0 is after each step")
        if not re.fullmatch(r"last|best|every:0*[1-9]\d*", self.keep):
            raise ValueError(
                f"checkpoint.keep={self.keep}: there are last, best and every:K, where K is a "
                "number of steps, such as every:500"
            )

    @property
    def every(self) -> int:
        """How many steps lie between two that are kept; 0 where none are."""
        return int(self.keep.partition(":")[2] or 0)


@dataclass(frozen=True)
class ClassifierConfig:
    """Of noisy latents: the class column that it is of, and its backbone, as settings that differ
    from the run's own or as `{name: ..., settings}`."""

    label: str | None = None
    backbone: Node | None = None


@dataclass(frozen=True)
class TrainConfig:
    """Everything that `anylatent train` is told; `training` has the settings of each stage.

    `source`, on the command line `from`: what the model comes from, of which it takes `take` (all,
    or the autoencoder). `tuning`: what of it learns. The run leans on it for the rest, unless
    `standalone`; `base` is where that has moved to. `finish`: what finished stages could go on from
    is removed. `data_changed`, on the command line `data.changed=accept`: the run goes on with
    other data than it was begun with.
    """

    data: Node
    run: str
    training: Mapping[str, Mapping[str, Any]]
    model: ModelConfig = inline()
    sampling: SamplingConfig = inline()
    stage: str = "all"
    source: str | None = None
    take: str = "all"
    base: str | None = None
    standalone: bool = False
    finish: bool = False
    data_changed: str | None = None
    seed: int = 0
    log_every: int = 50
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    tuning: Node = field(default_factory=lambda: {"name": "all"})

    def __post_init__(self) -> None:
        if self.data_changed not in (None, "accept"):
            raise ValueError(f"data.changed={self.data_changed}: there is only accept")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed}: there are those of 64 bits")
        if self.log_every < 1:
            raise ValueError(f"log_every={self.log_every}: a line every 1 step or more")
        if self.checkpoint.keep == "best" and not self.pictures.every:
            raise ValueError(
                "checkpoint.keep=best chooses by the held-out loss, which is measured every "
                "pictures.every steps: pictures.every=0 measures none"
            )

    @property
    def origin(self) -> Origin:
        """Where the model comes from."""
        return Origin(self.source, self.take, self.base, self.standalone)

    def of_run(self, facts: Mapping[str, Any]) -> RunConfig:
        """What a run with these settings, and data that say this of themselves, is made from."""
        known = {name: getattr(self, name) for name in ("model", "data", "sampling", "training")}
        told = {name: getattr(self, name) for name in ("seed", "source", "take", "tuning")}
        return RunConfig(**known, facts=facts, **told)

    def described(self, facts: Mapping[str, Any], further: tuple[str, ...]) -> dict[str, Any]:
        """What the run directory keeps: all but the settings of `further` stages, which may be
        trained beside a finished run with others each time."""
        found = {**asdict(self), "facts": dict(facts)}
        found["training"] = {k: v for k, v in self.training.items() if k not in further}
        return found
