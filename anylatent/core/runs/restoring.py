"""The model of a run: as it was trained, or as it would be without."""

from __future__ import annotations

import torch

from anylatent.core.runs.classifiers import load_classifiers
from anylatent.core.runs.config import RunConfig
from anylatent.core.runs.directory import RunDirectory
from anylatent.core.runs.records import described_by
from anylatent.core.runs.sources import extend, open_base, restore
from anylatent.core.runs.system import System
from anylatent.core.support.files import UserError


def restored(directory: RunDirectory, config: RunConfig, base: str | None = None) -> System:
    """With the run's weights and classifiers, frozen, on the CPU.

    `base` is where what it leans on has moved to. Raises UserError where stages are missing.
    """
    directory.check_weights()
    stages, path = directory.stages(), directory.path
    if not stages.ready:
        raise UserError(
            f"{path} has only its {' and '.join(stages.done)} so far: continue with 'anylatent "
            f"train run={path}' and the settings it was begun with"
        )
    opened = None if stages.base is None else open_base(stages.base, path, base)
    system = _built(directory, config)
    restore(system, directory, config, opened)
    for made, classifier in load_classifiers(directory.path, system).values():
        system.add_classifier(made.label, made.classes, classifier)
    return _frozen(system)


def untrained(directory: RunDirectory, config: RunConfig, trained: System) -> System:
    """The same with fresh weights in its generator, frozen, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = _built(directory, config)
    own = {k: v for k, v in trained.trained().items() if not k.startswith("generator.")}
    fresh.load_trained({**fresh.trained(), **own})
    return _frozen(fresh)


def _built(directory: RunDirectory, config: RunConfig) -> System:
    with described_by(directory.config_path):
        system = System(config.model, config.facts)
        extend(system, config.tuning)
        return system


def _frozen(system: System) -> System:
    return system.eval().requires_grad_(False)
