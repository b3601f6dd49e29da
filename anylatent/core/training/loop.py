"""`anylatent train`: the stages that a run wants, one after the other."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from anylatent.core.nn.backbone import compile_networks
from anylatent.core.registry import build, get, names
from anylatent.core.runs import Context, Node, RunDirectory, System, first_process
from anylatent.core.runs import sources as weights
from anylatent.core.runs.records import (
    described_by,
    facts_of,
    note,
    owned,
    taught,
)
from anylatent.core.runs.sources import Tuning, extend, tuned
from anylatent.core.support.files import UserError, load_checkpoint
from anylatent.core.training.callbacks import Checkpoint
from anylatent.core.training.events import quiet_threads
from anylatent.core.training.finite import check_weights
from anylatent.core.training.keeping import Best, best_of
from anylatent.core.training.learned_from import check_apart, check_told, data_to_learn
from anylatent.core.training.module import StageModule
from anylatent.core.training.peers import watched
from anylatent.core.training.plan import longer, wanted
from anylatent.core.training.settings import TrainConfig
from anylatent.core.training.stages.base import (
    Stage,
    Training,
    learning,
    settings_of,
    stage_type,
)
from anylatent.core.training.trainer import check, trainer_of


def train(config: TrainConfig) -> Path:
    """Trains what `stage` asks for, going on where the run directory stopped; returns it."""
    if config.stage not in ("all", *names("stage")):
        allowed = ", ".join(["all", *names("stage")])
        raise UserError(f"stage={config.stage} is unknown; choose one of {allowed}")
    check_apart(Path(config.run), config.data)
    _quiet()
    with owned(Path(config.run)):
        with described_by(RunDirectory(Path(config.run)).config_path):
            training = begin(config)
        left = wanted(training)
        check(config, left)
        for name in left:  # what can't be honoured is known before the first of them is trained
            stage_of(training, name)
        if first_process():
            tidy(training)
        if left and first_process():
            note(training.directory.path)
        for name in left:
            run_stage(training, name)
        if not left:
            print("nothing is left to train; more steps of the last stage would go on", flush=True)
        if config.finish and first_process():
            shutil.rmtree(training.directory.path / "finished", ignore_errors=True)
    return training.directory.path


def begin(config: TrainConfig) -> Training:
    """Builds everything, so that what can't be fails before a directory is claimed."""
    config.origin.check(Path(config.run))
    directory = RunDirectory(Path(config.run))
    if directory.config_path.exists():  # what it holds would be read into another model
        directory.check(config.described(directory.config().facts, _further()))
    data = data_to_learn(config)
    for kind in map(stage_type, names("stage")):
        if (kind.told_as or kind.name) in config.training:
            build("optimizer", settings_of(kind, config.training).optimizer)
    torch.manual_seed(config.seed)
    tuning = build("tuning", config.tuning)
    facts = facts_of(directory.path, data, config.data_changed is not None)
    system = System(config.model, facts, training=True)
    check_told(system, data)
    extend(system, begun_with(config, directory))
    autoencoder, generator = system.autoencoder, system.generator
    if not (autoencoder.alone or generator.slopes):
        autoencoder.requires_grad_(False)  # what would teach it has nothing to say of latents
    generator.accepts(Context(generator.times).sampler(config.sampling))
    Context.check_guidance(config.sampling.guidance, system.conditioner.spec.names)
    found = weights.begin(system, directory, config.of_run(facts), config.origin, tuning)
    sources = [*generator.origins.values(), *([config.source] if config.source else [])]
    data, items = taught(directory.path, data, sources)
    training = Training(config, directory, data, system, found.stages, tuning, found.leaning)
    training.longer = longer(training)
    directory.claim(config.described(facts, _further()))
    if first_process():
        items.save(directory.path)
    if not found.told and config.stage == "autoencoder" and not directory.weights_path.exists():
        training.done = replace(found.stages, done=())  # it is to be trained all the same
        training.generates = found.generates
    elif not found.told and found.stages.done:
        training.save()
    return training


def _further() -> tuple[str, ...]:
    """The stages that are trained beside a finished run."""
    return tuple(name for name in names("stage") if stage_type(name).further)


def tidy(training: Training) -> None:
    """Removes checkpoints of stages that are done, where a process was killed after noting it."""
    for name in training.done.done:
        if name not in training.longer:
            training.directory.checkpoint(name).unlink(missing_ok=True)


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


# ---- one stage --------------------------------------------------------------------------------
def run_stage(training: Training, name: str) -> None:
    """Trains a stage to its end, if there is anything to train, and notes that it is done."""
    kind, stage = stage_type(name), stage_of(training, name)
    if learning(stage.networks().values()):
        with tuning_of(training, stage), _only(training.system, stage):
            if learning(stage.networks().values()):  # of one member there may be nothing to tune
                fit(training, stage)
    if first_process():
        stage.finish()
    if not kind.further:
        done(training, stage)
    if first_process():  # no sooner: a process may be killed anywhere
        training.directory.checkpoint(stage.label).unlink(missing_ok=True)
    if not kind.further and name not in stage.notes:
        run_stage(training, name)


def stage_of(training: Training, name: str) -> Stage:
    """A stage with its settings. Raises UserError for those that it can't honour."""
    kind = stage_type(name)
    settings = settings_of(kind, training.config.training)
    if kind.further and training.config.checkpoint.every:
        raise UserError(
            f"stage={name} is trained beside the run, of which it can't keep others on the way: "
            f"give checkpoint.keep=last or best (it is {training.config.checkpoint.keep} now)"
        )
    found: Stage = build("stage", {"name": name}, training=training, settings=settings)
    return found


def done(training: Training, stage: Stage) -> None:
    """Notes it in the run, beside the weights as they are now."""
    training.done = training.after(stage, stage.settings.steps)
    training.longer = tuple(name for name in training.longer if name not in stage.notes)
    for name in stage.needs:  # which can't have more steps now
        training.directory.finished(name).unlink(missing_ok=True)
        best_of(training.directory, name).unlink(missing_ok=True)
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
            compile_networks(network)
    module = StageModule(stage, stage.dataset())
    checkpoint = Checkpoint(directory.checkpoint(stage.label), config.checkpoint.seconds)
    finished = Checkpoint(directory.finished(stage.label), 0)
    if (state := _begun(training, stage.label, checkpoint, finished)) is not None:
        module.restore(state)
    best = Best(best_of(directory, stage.label)) if config.checkpoint.keep == "best" else None
    if best is not None:
        had = training.done.steps.get(stage.label)
        best.begin(module, stage.label in training.longer and module.number == had)
    trainer = trainer_of(training, module, checkpoint, best)
    training.system.eval()
    module.trained.train()
    with quiet_threads(), watched(trainer):
        trainer.fit(module)
    check_weights(module, checkpoint.path)
    if module.number < stage.settings.steps:  # whoever ended it
        if trainer.is_global_zero:
            checkpoint.save(module)
        raise UserError(
            f"stopped at {stage.label} step {module.number} of {stage.settings.steps}; the same "
            "command continues"
        )
    if trainer.is_global_zero:
        finished.save_or_warn(module)
    _leave(module, trainer, best)


def _leave(module: StageModule, trainer: pl.Trainer, best: Best | None) -> None:
    """On the CPU, with the averaged weights or, where they are kept, the best ones."""
    module.average.to(torch.device("cpu"))
    module.cpu()
    module.average.swap()
    if best is not None:
        trainer.strategy.barrier()  # the first process may just be writing
        best.take(module, trainer.is_global_zero)
    module.eval()


def _begun(
    training: Training, label: str, checkpoint: Checkpoint, finished: Checkpoint
) -> dict[str, Any] | None:
    """What a stage goes on from; one that is to have more steps, from no fewer than it had."""
    state = load_checkpoint(checkpoint.path) if checkpoint.path.exists() else None
    if label not in training.longer:
        return state
    had = training.done.steps[label]
    if state is None or not isinstance(state.get("step"), int) or state["step"] <= had:
        return load_checkpoint(finished.path)
    return state


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
