"""The data that are inverted: of a run's own those that no training saw, of others all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from anylatent.core.latents import Noise
from anylatent.core.modality import Data, Item
from anylatent.core.registry import build, part
from anylatent.core.reports.evaluation import columns_of
from anylatent.core.runs import Node, Run
from anylatent.core.runs.records import Learned, data_of, digests, measured
from anylatent.core.support.files import UserError, place_of


class InvertedData:
    """n items of data that a run can read, with their conditions.

    Of the run's own data n of those held out are taken, in an order of the seed, of others, which
    are read as the run reads its own, the first n. Raises UserError for data that are encoded
    otherwise, and for the run's own data with other settings.
    """

    def __init__(self, run: Run, node: Node, n: int, seed: int) -> None:
        self.run, self.node, self.n, self.seed = run, node, n, seed
        self.foreign = self._foreign()
        self.data = self._data()
        self.places, self.items = self._items()

    def _foreign(self) -> bool:
        """Whether the data are others than the run's own: of another name, or in another place."""
        asked, own = self.node, self.run.config.data
        keys = [key for key in asked if key != "path" and asked[key] != own.get(key)]
        if asked["name"] != own["name"]:
            return True
        if _place(asked) != _place(own):
            return bool(keys) or not self._moved()
        if keys:
            told = ", ".join(f"data.{key}={asked[key]} (the run: {own.get(key)})" for key in keys)
            raise UserError(
                f"data={asked['name']} are the run's own data, of which those are inverted that it "
                f"held out from training, and other settings hold out others: leave out {told}"
            )
        return False

    def _moved(self) -> bool:
        """Whether items that the run held out are where it did not have them then."""
        path = self.run.directory.path
        told = Learned.load(path)
        if told is None:
            return False
        try:
            there = digests(data_of(path, self.node)).every
        except UserError:  # too few to be parted, as others may be
            return False
        return bool(torch.isin(there, told.held_out).any())

    def _data(self) -> Data:
        """Other data are read by the run's facts, and nothing of them is held out."""
        node, facts = dict(self.node), self.run.config.facts
        encoding = {k: facts[k] for k in self.run.system.modality.encoding if k in facts}
        settings = part("data", node["name"]).settings()
        if self.foreign and "held_out" in settings:
            node["held_out"] = 0.0
        if self.foreign:
            data: Data = build("data", node, **encoding)
        else:
            data = measured(self.run.directory.path, data_of(self.run.directory.path, node))
        for name, here in encoding.items():
            there = data.facts.get(name)
            if _plain(here) != _plain(there):
                raise UserError(
                    f"data={node['name']}: {name} is {_short(there)} there, and {_short(here)} in "
                    f"what {self.run.directory.path} was trained on, which can not read them. The "
                    f"settings of such data are {', '.join(settings)}"
                )
        return data

    def _items(self) -> tuple[list[int], list[Item]]:
        """Of the run's own data what no training saw, in an order of the seed; of others all."""
        held_out, foreign = self.data.held_out(), self.foreign
        dataset: Any = ConcatDataset([self.data.train(), held_out] if foreign else [held_out])
        order = torch.arange(len(dataset))
        if not foreign:
            order = Noise([self.seed]).uniform(len(dataset))[0].argsort()
        places = order[: self.n].tolist()
        return places, [dataset[place] for place in places]

    def columns(self, asked: Mapping[str, Any], guidance: Node | None) -> dict[str, list[Any]]:
        """The conditions of the items, as a user would write them: their own or those asked for."""
        run, n = self.run, len(self.items)
        known = run.conditions(guidance)
        run.check_asked(list(asked), guidance)
        sizes = [name for name in asked if name not in known]
        if sizes:
            raise UserError(f"cond.{sizes[0]} is told by the data that are inverted; leave it out")
        columns = columns_of(self.items, [name for name in known if name not in asked], n)
        own = {name: [self._named(name, v) for v in values] for name, values in columns.items()}
        asked_for = run.columns(asked, n)
        return (self._known(own) if self.foreign else own) | asked_for

    def _known(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Null instead of classes of other data that the run has not, and a warning about them."""
        found = dict(columns)
        for name in [name for name in columns if name in self.run.config.classes]:
            names = self.run.config.classes[name]
            known = {label.casefold() for label in names}
            values = [v if str(v).casefold() in known else None for v in columns[name]]
            gone = {
                str(v): None for v, kept in zip(columns[name], values, strict=True) if kept is None
            }
            if gone:
                warnings.warn(
                    f"{self.run.directory.path} knows no {name} {_short(', '.join(gone))}: "
                    f"{values.count(None)} of {len(values)} samples are inverted with "
                    f"cond.{name}=null. Give cond.{name}=..., one of {', '.join(names)}, or a list",
                    stacklevel=2,
                )
            found[name] = values
        return found

    def _named(self, name: str, value: Any) -> Any:
        """Classes by their names, which mean the same in any data."""
        plain: Any = value.tolist() if isinstance(value, Tensor) else value
        return self.data.classes[name][int(plain)] if name in self.data.classes else plain


def _place(data: Node) -> Path | None:
    """Where the files of data are, however their path is written."""
    return place_of(data["path"]).resolve() if data.get("path") else None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _short(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."
