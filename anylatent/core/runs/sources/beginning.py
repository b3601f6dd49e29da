"""The weights that training begins with: those of the run so far, or of what it comes from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from anylatent.core.runs.base import Base, Leaning
from anylatent.core.runs.config import RunConfig
from anylatent.core.runs.directory import RunDirectory, Stages
from anylatent.core.runs.sources.adoption import Adoption
from anylatent.core.runs.sources.run import TAKE, adoption, open_base, restore, stage_adoption
from anylatent.core.runs.sources.source import Source, source_of
from anylatent.core.runs.sources.tuning import Nothing, Tuning
from anylatent.core.runs.system import System
from anylatent.core.support.files import UserError
from anylatent.core.support.plain_yaml import plain


@dataclass(frozen=True)
class Origin:
    """What a user says of where a model comes from: a path, how much of it, where its base has
    moved to, and whether it is to be copied."""

    source: str | None = None
    take: str = "all"
    base: str | None = None
    standalone: bool = False

    def check(self, run: Path) -> None:
        """Raises UserError for what makes no sense for a run at this path."""
        if self.source is not None and Path(self.source).resolve() == run.resolve():
            raise UserError(f"from={self.source} is the run itself: give run= another directory")
        if self.take not in TAKE:
            raise UserError(f"take={self.take} is unknown; choose one of {', '.join(TAKE)}")
        if self.source is None and self.take != "all":
            raise UserError(f"take={self.take} is of another model: add from=PATH")


@dataclass(frozen=True)
class Beginning:
    """The stages that are done, and what of the weights is a base's. `generates`: a whole generator
    came with them. `told`: whether the run's file says so already."""

    stages: Stages
    leaning: Leaning | None = None
    generates: bool = False
    told: bool = True


def begin(
    system: System, directory: RunDirectory, config: RunConfig, origin: Origin, tuning: Tuning
) -> Beginning:
    """Gives a model that is to be trained its weights, and says what it took from where."""
    leans, stages = tuning.leans and not origin.standalone, directory.stages()
    if stages.done:
        return _go_on(system, directory, config, origin, leans)
    if origin.source is None:
        _check_learns(system.trained(), tuning)
        _begin_stages(system, config)
        return Beginning(stages)
    source = source_of(origin.source, origin.base)
    if tuning.leans:
        _check_frozen(config, source.config, origin)
    found = adoption(system, config, source)
    other = source.config.model.modality["name"] != config.model.modality["name"]
    _check(found, origin, other or origin.take == "autoencoder")
    _check_learns(found.fresh, tuning)
    _check_new(found, tuning, system)
    leaning = _leaning(system, directory, config, source, found) if leans else None
    found.put(system)
    print(f"from {origin.source}:\n{found.table()}", flush=True)
    for name in _begin_stages(system, config):
        if leaning is not None:
            leaning.trained([name])
    whole = found.whole("autoencoder")
    stages = Stages(
        done=("autoencoder",) if whole else (),
        normalised=whole and found.came("normaliser"),
        base=None if leaning is None else leaning.base,
    )
    generates = found.came("generator") and found.whole("conditioner")
    return Beginning(stages, leaning, generates, told=False)


def _begin_stages(system: System, config: RunConfig) -> list[str]:
    """Gives parts of the generator the weights of the models that they start from; their names."""
    names: list[str] = []
    for place, path in system.generator.origins.items():
        found = stage_adoption(system, config, source_of(path), place)
        if not found.taken:
            raise UserError(
                f"generator.{place}.from={path}: no weight of its generator has a place in this "
                "stage. Leave more of its settings as they are there"
            )
        found.put(system)
        print(f"generator.{place} from {path}:\n{found.table()}", flush=True)
        names += found.taken
    return names


def _go_on(
    system: System, directory: RunDirectory, config: RunConfig, origin: Origin, leans: bool
) -> Beginning:
    """From the run's own weights; where it is to lean on nothing any more, it has to be saved."""
    stages = directory.stages()
    if stages.base is None:
        restore(system, directory, config)
        return Beginning(stages)
    base = open_base(stages.base, directory.path, origin.base)
    given = restore(system, directory, config, base)
    if not leans:
        return Beginning(replace(stages, base=None), told=not origin.standalone)
    moved = Base.of(base.path, directory.path, stages.base.digest)
    return Beginning(replace(stages, base=moved), Leaning(moved, given, system))


def _check(found: Adoption, origin: Origin, latents: bool) -> None:
    """Raises UserError where what was asked for has no place: of `latents`, the whole
    autoencoder, which a model of another modality begins with too."""
    if latents and not found.whole("autoencoder"):
        names = [name for name in found.fresh if name.startswith("autoencoder.")]
        shown = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
        raise UserError(
            f"the autoencoder of {origin.source} is of another architecture than this one: it has "
            f"nothing for {len(names)} of its weights ({shown}), and latents of another shape or "
            "meaning come of that. Leave its settings as they are"
        )
    if found.fresh and not found.taken:
        raise UserError(
            f"nothing of {origin.source} has a place in this model: no name and shape of its "
            "weights is one of these. Leave more of its settings as they are"
        )


def _check_frozen(config: RunConfig, source: RunConfig, origin: Origin) -> None:
    """Raises UserError where what stays frozen would be asked for what it was not trained for."""
    pairs = {
        "schedule": (config.model.schedule, source.model.schedule),
        "prediction": (config.model.prediction, source.model.prediction),
        "the shape of data": (config.facts.get("shape"), source.facts.get("shape")),
    }
    for name, (own, other) in pairs.items():
        if None not in (own, other) and plain(own) != plain(other):
            raise UserError(
                f"{name} is {_told(own)}, and {_told(other)} of {origin.source}, most of which "
                f"tuning={config.tuning['name'] if config.tuning else 'all'} leaves as it is: it "
                "was trained for that alone. Leave it as it is there, or use tuning=all"
            )


def _check_learns(fresh: Collection[str], tuning: Tuning) -> None:
    """Raises UserError for weights that nobody has trained, where nothing is to learn."""
    names = list(fresh)
    if isinstance(tuning, Nothing) and names:
        shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        raise UserError(
            f"tuning=none learns nothing, and {len(names)} weights of this model ({shown}) are not "
            "trained: take them from a model that has them all, from=PATH, and leave its settings "
            "as they are there"
        )


def _check_new(found: Adoption, tuning: Tuning, system: System) -> None:
    """Raises UserError where conditions are new that start at zero and would stay there."""
    own = dict(system.named_parameters())
    widened = {
        name
        for name, value in found.taken.items()
        if found.numbers[name] < value.numel() and ".classes." not in name  # new ones of its rows
    }
    new = [name for name in own if name in found.zeros or name in widened]
    if not new:
        return
    still = sorted(set(new) - set(tuning.learns(list(own))))
    if still:
        shown = ", ".join(still[:3]) + (" ..." if len(still) > 3 else "")
        raise UserError(
            "this model reads conditions that the one it comes from does not, whose weights start "
            f"at zero, and what learns has no part in them ({shown}): use tuning=all, or "
            "tuning=matching with a tuning.pattern that finds them, such as "
            "'temporal|condition|first', or leave the conditions out"
        )


def _told(value: object) -> str:
    own = plain(value)
    return f"{own['name']} with {own}" if isinstance(own, dict) and "name" in own else str(own)


def _leaning(
    system: System, directory: RunDirectory, config: RunConfig, source: Source, found: Adoption
) -> Leaning:
    """On the source, or on what that leans on itself: no base has a base."""
    root, given = source.root, found.taken
    if root is not source:
        others = adoption(system, config, root).taken
        given = {k: x for k, x in given.items() if k in others and torch.equal(x, others[k])}
    return Leaning(Base.of(root.path, directory.path, root.digest()), given, system)
