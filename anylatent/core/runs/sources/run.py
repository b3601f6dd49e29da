"""A run as a source, and the weights of a run, whatever it leans on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from torch import Tensor

from anylatent.core.registry import register
from anylatent.core.runs.base import Base
from anylatent.core.runs.config import RunConfig
from anylatent.core.runs.directory import RunDirectory, Stages
from anylatent.core.runs.sources.adoption import Adoption, adopt
from anylatent.core.runs.sources.source import Source, source_of
from anylatent.core.runs.sources.tuning import extend
from anylatent.core.runs.system import System

TAKE = {"all": "", "autoencoder": "autoencoder"}
"""What a model takes of another, and the module that has it."""


@register("source", "run")
class RunSource(Source):
    """The folder of a run of anylatent, with config.yaml and model.safetensors.

    Of a run whose generator is not trained yet, the autoencoder.
    """

    def __init__(self, path: Path, base: str | None = None) -> None:
        super().__init__(path, base)
        self.directory = RunDirectory(path)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / "config.yaml").is_file()

    @cached_property
    def config(self) -> RunConfig:
        return self.directory.config()

    @cached_property
    def _stages(self) -> Stages:
        self.directory.check_weights()
        return self.directory.stages()

    @cached_property
    def root(self) -> Source:
        own = self._stages.base
        return self if own is None else open_base(own, self.path, self.base)

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        tensors, stages = self.directory.weights()
        if stages.base is not None:
            system = System(self.config.model, self.config.facts)
            extend(system, self.config.tuning)
            restore(system, self.directory, self.config, self.root)
            tensors = system.trained()
        if not stages.ready:
            tensors = {k: v for k, v in tensors.items() if k.startswith("autoencoder.")}
        return tensors

    def weights(self) -> dict[str, Tensor]:
        return self._tensors


# ---- a run and its base -----------------------------------------------------------------------
def adoption(system: System, config: RunConfig, source: Source) -> Adoption:
    """What the model of a run takes of a source."""
    classes, old = config.classes, source.config.classes
    return adopt(system, classes, source.weights(), old, TAKE[config.take])


def stage_adoption(system: System, config: RunConfig, source: Source, stage: str) -> Adoption:
    """What one module of the generator takes of a source: of the module of this name in it, or
    else of its generator."""
    place, old = f"generator.{stage}", source.weights()
    if not any(name.startswith(f"{place}.") for name in old):
        own = {name.partition(".")[2]: x for name, x in old.items() if name.startswith("generator")}
        old = {f"{place}.{name}": x for name, x in own.items()}
    return adopt(system, config.classes, old, source.config.classes, place)


def open_base(base: Base, run: Path, given: str | None = None) -> Source:
    """The base of a run, as it was when the run was trained; says where it is."""
    path = base.find(run, given)
    print(f"{run} leans on {path}", flush=True)
    source = source_of(path)
    base.check(run, path, source.digest())
    return source


def restore(
    system: System, directory: RunDirectory, config: RunConfig, base: Source | None = None
) -> dict[str, Tensor]:
    """Reads a run's weights into its model, and those of its base where it leans on one.

    Returns what is the base's, by the model's names; `base` is that base where it is open already.
    """
    tensors, stages = directory.weights()
    given: dict[str, Tensor] = {}
    if stages.base is not None:
        source = open_base(stages.base, directory.path) if base is None else base
        given = adoption(system, config, source).taken
    system.load_trained({**given, **tensors})
    return {name: value for name, value in given.items() if name not in tensors}
