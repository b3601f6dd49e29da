"""What a run is to learn from, and what can be said of that before anything is computed."""

from __future__ import annotations

import warnings
from pathlib import Path

from anylatent.core.modality import Data
from anylatent.core.runs import Node, System
from anylatent.core.runs.records import Learned, data_of
from anylatent.core.runs.sources import source_of
from anylatent.core.support.files import UserError
from anylatent.core.training.settings import TrainConfig


def data_to_learn(config: TrainConfig) -> Data:
    """The data. Raises UserError where nothing is held out, but by a run that is there already."""
    run, source = Path(config.run), None
    begun = Learned.load(run) is not None
    if config.source and not begun:
        source = source_of(config.source).config
        if source.model.modality["name"] != config.model.modality["name"]:
            source = None  # which is refused with what else there is to say
    data = data_of(run, config.data, source)
    if not begun and not len(data.held_out()):  # type: ignore[arg-type]
        raise UserError(
            "no data are held out, which training measures itself by: give data.held_out a "
            "fraction between 0 and 1, such as 0.1"
        )
    return data


def check_apart(run: Path, data: Node) -> None:
    """Raises UserError for a run within the folder of its data, of which it would become some."""
    path = data.get("path")
    if not isinstance(path, str) or not path or not Path(path).is_dir():
        return
    if run.resolve().is_relative_to(Path(path).resolve()):
        raise UserError(
            f"run={run} lies in data.path={path}, as some of which its own files would be read: "
            "choose a directory elsewhere"
        )


def check_told(system: System, data: Data) -> None:
    """Warns where a conditioner would learn nothing, since there is nothing to learn from."""
    there = data.train()[0]
    for name in system.conditioner.columns:
        if name in data.empty or name not in there:
            what = "is empty in every item of the data" if name in there else "the data do not have"
            warnings.warn(
                f"the conditioner reads the column '{name}', which {what}: the model will not "
                f"follow cond.{name}. Give the data some, or set conditioner=none",
                stacklevel=3,
            )
            return
