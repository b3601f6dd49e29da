"""`anylatent train`: the stages that a run wants, one after the other."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from anylatent.core.modality import Data
from anylatent.core.nn.backbone import Backbone
from anylatent.core.registry import build, get, names
from anylatent.core.runs import Context, Node, RunDirectory, System, first_process
from anylatent.core.runs import sources as weights
from anylatent.core.runs.sources import Tuning, extend, tuned
from anylatent.core.support.files import UserError
from anylatent.core.training.callbacks import Checkpoint, History, Pictures, Progress, Stop
from anylatent.core.training.hardware import has_bfloat16
from anylatent.core.training.module import StageModule
from anylatent.core.training.settings import TrainConfig, TrainerConfig
from anylatent.core.training.stages.base import (
    Stage,
    Training,
    learning,
    settings_of,
    stage_type,
)


def train(config: TrainConfig) -> Path:
    """Trains what `stage` asks for, going on where the run directory stopped; returns it."""
    if config.stage not in ("all", *names("stage")):
        allowed = ", ".join(["all", *names("stage")])
        raise UserError(f"stage={config.stage} is unknown; choose one of {allowed}")
    _quiet()
    training = begin(config)
    for name in wanted(training):
        run_stage(training, name)
    return training.directory.path


def begin(config: TrainConfig) -> Training:
    """Builds everything, so that what can't be fails before a directory is claimed."""
    config.origin.check(Path(config.run))
    data: Data = build("data", config.data)
    if not len(data.held_out()):  # type: ignore[arg-type]
        raise UserError(
            "no data are held out, which training measures itself by: give data.held_out a "
            "fraction between 0 and 1, such as 0.1"
        )
    for kind in map(stage_type, names("stage")):
        if (kind.told_as or kind.name) in config.training:
            settings_of(kind, config.training)
    torch.manual_seed(config.seed)
    directory, tuning = RunDirectory(Path(config.run)), build("tuning", config.tuning)
    system = System(config.model, data.facts, training=True)
    _check_told(system, data)
    extend(system, begun_with(config, directory))
    autoencoder, generator = system.autoencoder, system.generator
    if not (autoencoder.alone or generator.slopes):
        autoencoder.requires_grad_(False)  # what would teach it has nothing to say of latents
    generator.accepts(Context(generator.times).sampler(config.sampling))
    further = tuple(name for name in names("stage") if stage_type(name).further)
    described = config.described(data.facts, further)
    if directory.config_path.exists():
        directory.claim(described)  # or what it holds would be read into another model
    found = weights.begin(system, directory, config.of_run(data.facts), config.origin, tuning)
    directory.claim(described)
    training = Training(config, directory, data, system, found.stages, tuning, found.leaning)
    if not found.told and config.stage == "autoencoder" and not directory.weights_path.exists():
        training.done = replace(found.stages, done=())  # it is to be trained all the same
        training.generates = found.generates
    elif not found.told and found.stages.done:
        training.save()
    return training


def _check_told(system: System, data: Data) -> None:
    """Warns where a conditioner would learn nothing, since there is nothing to learn from."""
    empty = [name for name in system.conditioner.columns if name in data.empty]
    if empty:
        warnings.warn(
            f"the conditioner reads the column '{empty[0]}', which is empty in every item of the "
            f"data: the model will not follow cond.{empty[0]}. Give the data some, or set "
            "conditioner=none",
            stacklevel=3,
        )


def begun_with(config: TrainConfig, directory: RunDirectory) -> Node:
    """The tuning that the run was begun with, which may have added networks to its model. Raises
    UserError for another one that would add some."""
    if not directory.config_path.exists():
        return config.tuning
    begun, asked = (
        directory.config().tuning or {"name": "all"},
        get("tuning", config.tuning["name"]),
    )
    adds = getattr(asked, "extend", None) is not Tuning.extend
    if adds and begun != config.tuning:
        raise UserError(
            f"{directory.path} was begun with tuning={begun['name']}, and tuning="
            f"{config.tuning['name']} adds networks to the model: begin another run with it"
        )
    return begun


# ---- which stages -----------------------------------------------------------------------------
def wanted(training: Training) -> list[str]:
    """The stages to run now, in order. Raises UserError where one needs what is not there."""
    asked, autoencoder = training.config.stage, training.system.autoencoder
    learns = bool(learning([autoencoder]))
    if asked == "all":
        chosen = ["autoencoder", "diffusion"] if autoencoder.alone or not learns else ["joint"]
        return [] if training.done.ready else _left(training, chosen)
    kind = stage_type(asked)
    if kind.further and not training.done.ready:
        raise UserError(
            f"{training.directory.path} has no finished generator yet, beside which stage={asked} "
            "is trained: train it first, with stage=all"
        )
    if "autoencoder" in (asked, *kind.needs) and learns and not autoencoder.alone:
        raise UserError(
            f"stage={asked}: {type(autoencoder).__name__} learns with the generator alone; use "
            "stage=joint"
        )
    missing = [name for name in kind.needs if name not in training.done.done]
    if missing and learns:
        raise UserError(
            f"{training.directory.path} has no trained {missing[0]} yet: use stage=all, or "
            f"stage={missing[0]} first"
        )
    return [asked] if kind.further else _left(training, [*missing, asked])


def _left(training: Training, chosen: list[str]) -> list[str]:
    return [name for name in chosen if name not in training.done.done]


# ---- one stage --------------------------------------------------------------------------------
def run_stage(training: Training, name: str) -> None:
    """Trains a stage to its end, if there is anything to train, and notes that it is done."""
    kind = stage_type(name)
    settings = settings_of(kind, training.config.training)
    stage: Stage = build("stage", {"name": name}, training=training, settings=settings)
    if learning(stage.networks().values()):
        with tuning_of(training, stage), _only(training.system, stage):
            if learning(stage.networks().values()):  # of one member there may be nothing to tune
                fit(training, stage)
    if first_process():
        stage.finish()
        training.directory.checkpoint(stage.label).unlink(missing_ok=True)
    if kind.further:
        return
    done(training, stage)
    if name not in stage.notes:
        run_stage(training, name)


def done(training: Training, stage: Stage) -> None:
    """Notes it in the run, beside the weights as they are now."""
    before = training.done
    completed = stage.completes and stage.name in stage.notes
    ready = before.ready or completed or training.generates
    training.done = replace(before, done=(*before.done, *stage.notes), ready=ready)
    training.save()


@contextmanager
def tuning_of(training: Training, stage: Stage) -> Iterator[None]:
    """Only what the tuning wants of a stage's networks learns, and is the run's own from now on."""
    autoencoder = training.system.autoencoder
    spared = [f"autoencoder.{name}." for name in autoencoder.for_loss]
    with tuned(training.tuning, stage.networks(), spared) as names:
        if training.leaning is not None:
            training.leaning.trained(names)
        yield


def fit(training: Training, stage: Stage) -> None:
    """Trains a stage to its end and leaves the averaged weights in its networks."""
    config, directory = training.config, training.directory
    if config.trainer.compile:
        for network in stage.networks().values():
            _compile(network)
    module = StageModule(stage, stage.dataset())
    checkpoint = Checkpoint(directory.checkpoint(stage.label), config.checkpoint.seconds)
    if checkpoint.path.exists():
        module.restore(directory.load_checkpoint(stage.label))
    stop = Stop()
    history = History(directory.path / "logs" / f"{stage.label}.csv", config.log_every)
    pictures = Pictures(config.pictures.every, directory.path / "pictures", history)
    trainer = trainer_of(training, stage, [history, pictures, checkpoint, stop, Progress()])
    training.system.eval()
    module.trained.train()
    trainer.fit(module)
    if stop.asked and module.number < stage.settings.steps:
        if trainer.is_global_zero:
            checkpoint.save(module)
        raise UserError(
            f"stopped at {stage.label} step {module.number} of {stage.settings.steps}; the same "
            "command continues"
        )
    module.average.to(torch.device("cpu"))
    module.cpu()
    module.average.swap()
    module.eval()


def trainer_of(training: Training, stage: Stage, callbacks: list[Any]) -> pl.Trainer:
    config: TrainerConfig = training.config.trainer
    options = {k: v for k, v in asdict(config).items() if k != "compile"}
    if config.precision == "auto":
        on_gpu = config.accelerator != "cpu" and torch.cuda.is_available()
        fast = has_bfloat16("cuda" if on_gpu else "cpu")
        options["precision"] = "bf16-mixed" if fast else "32-true"
    if options["strategy"] == "ddp" and len(stage.optimisers()) > 1:
        options["strategy"] = "ddp_find_unused_parameters_true"  # a step may use one alone
    return pl.Trainer(
        **options,
        max_epochs=1,
        log_every_n_steps=1,
        logger=TensorBoardLogger(training.directory.path / "logs", name="", version=stage.label),
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def _compile(network: torch.nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Backbone):
            module.compile()


@contextmanager
def _only(system: System, stage: Stage) -> Iterator[None]:
    """No gradients for what a stage does not train; DDP waits for every other parameter."""
    trained = {id(p) for parameters in stage.optimisers().values() for p in parameters}
    frozen = [p for p in system.parameters() if p.requires_grad and id(p) not in trained]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _quiet() -> None:
    """Lightning's remarks that ask nothing of the user."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*`isinstance.treespec, LeafSpec.` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
