"""What of one model's weights has a place in another.

A tensor's place is the one of its name; where there is none, one whose name has the modules of a
wrapper more or fewer (`backbone.backbone.first.weight` is `backbone.first.weight` of a backbone
that hosts a guest), if that is unambiguous. Tables of classes go row by row, by the names of the
classes; the weights that read maps go column by column. What is new of conditions starts at zero,
and so do the columns of new maps: the model starts as the old one, bit for bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anylatent.core.nn.conditioning import ConditionEmbedder
from anylatent.core.runs.system import PARTS, System
from anylatent.core.support.files import UserError


@dataclass
class Adoption:
    """Weights for a model, by its own names and in its own shapes.

    `numbers`: how many of each tensor were the old model's; the rest of it starts at zero. `fresh`
    are the numbers of each tensor that it gives nothing for, `left` those of the old model's
    without a place.
    """

    taken: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    zeros: dict[str, Tensor] = field(default_factory=dict)
    fresh: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)

    def whole(self, part: str) -> bool:
        """Whether nothing of a part of the model is new."""
        return not any(_part(name) == part for name in self.fresh)

    def came(self, part: str) -> bool:
        """Whether all of a part was given, and there was something to give."""
        return self.whole(part) and any(_part(name) == part for name in self.taken)

    @torch.no_grad()
    def put(self, system: System) -> None:
        """Copies the weights in, and starts new conditions at zero."""
        own = system.trained()
        for name, value in {**self.taken, **self.zeros}.items():
            own[name].copy_(value)

    def table(self) -> str:
        """Tensors and numbers of each part that were taken, are new and were left, as Markdown."""
        new = {k: x.numel() - self.numbers[k] for k, x in self.taken.items()}
        new = {k: n for k, n in new.items() if n} | self.fresh
        columns = {"taken": self.numbers, "new": new, "left": self.left}
        rows = ["| part | " + " | ".join(columns) + " |", "| --- " * 4 + "|"]
        for part in PARTS:
            cells = [[n for name, n in c.items() if _part(name) == part] for c in columns.values()]
            if part == "conditioner" and not any(cells):
                continue
            shown = [f"{sum(c):,} numbers in {len(c)} tensors" if c else "-" for c in cells]
            rows.append(f"| {part} | " + " | ".join(shown) + " |")
        return "\n".join(rows)


def _part(name: str) -> str:
    return name.partition(".")[0]


def adopt(
    system: System,
    classes: Mapping[str, list[str]],
    old: Mapping[str, Tensor],
    old_classes: Mapping[str, list[str]],
    take: str = "",
) -> Adoption:
    """What `system` can take of old weights; the class columns of both data tell whose rows are
    whose. `take` names the module that is to have them, by default all of it."""
    own = system.trained()
    if take:
        own, old = ({k: v for k, v in x.items() if k.startswith(f"{take}.")} for x in (own, old))
    partners, found = _partners(own, old), Adoption()
    fit = _Fit(system, partners, old, classes, old_classes)
    fit.check_maps()
    for name, value in own.items():
        partner = partners.get(name)
        fitted = None if partner is None else fit(name, value, old[partner])
        if fitted is None:
            found.fresh[name] = value.numel()
        else:
            found.taken[name], found.numbers[name] = fitted
    used = {partners[name] for name in found.taken}
    found.left = {name: value.numel() for name, value in old.items() if name not in used}
    found.zeros = {k: torch.zeros_like(own[k]) for k in fit.starts_at_zero(found.taken, own)}
    return found


# ---- whose place is whose ---------------------------------------------------------------------
def _partners(own: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, str]:
    """The old name for each name that has one: its own, else the one with the fewest modules more
    or fewer."""
    pairs = {name: name for name in own if name in old}
    free, spare = ({n for n in x if n not in pairs} for x in (own, old))
    options = [(name, other) for name in free for other in _unwrapped(name) if other in spare]
    options += [(name, other) for other in spare for name in _unwrapped(other) if name in free]
    for name, other in _nearest(_nearest(set(options), 0), 1):
        pairs[name] = other
    return pairs


def _nearest(options: set[tuple[str, str]], side: int) -> set[tuple[str, str]]:
    """Of pairs of names, the closest one of each name on one side; none where two are as close."""
    found, groups = set[tuple[str, str]](), defaultdict[str, list[tuple[str, str]]](list)
    for pair in options:
        groups[pair[side]].append(pair)
    for pairs in groups.values():
        steps = [abs(name.count(".") - other.count(".")) for name, other in pairs]
        if steps.count(min(steps)) == 1:
            found.add(pairs[steps.index(min(steps))])
    return found


def _unwrapped(name: str) -> Iterator[str]:
    """The name without some modules in a row that could be a wrapper's: none with a number."""
    path = name.split(".")
    for start in range(1, len(path) - 1):
        for end in range(start + 1, len(path)):
            if path[end - 1].isdigit():
                break
            yield ".".join([*path[:start], *path[end:]])


# ---- what fits into it ------------------------------------------------------------------------
class _Fit:
    """Old tensors in the shapes of new ones, where conditions of the two differ."""

    def __init__(
        self,
        system: System,
        partners: Mapping[str, str],
        old: Mapping[str, Tensor],
        classes: Mapping[str, list[str]],
        old_classes: Mapping[str, list[str]],
    ) -> None:
        self.partners, self.old = partners, old
        self.classes, self.old_classes = classes, old_classes
        self.embedders = {
            path: module
            for path, module in system.named_modules(remove_duplicate=False)
            if isinstance(module, ConditionEmbedder)
        }
        self.tables = {
            f"{path}.classes.{key}.weight": key
            for path, embedder in self.embedders.items()
            for key in embedder.spec.classes
            if key in system.conditioner.columns
        }

    def __call__(self, name: str, new: Tensor, old: Tensor) -> tuple[Tensor, int] | None:
        """The old tensor in the new one's shape, and how many numbers of it are the old one's; None
        where they do not fit."""
        key = self.tables.get(name)
        if key is not None and key in self.classes and key in self.old_classes:
            return self._rows(new, old, key)
        if new.shape == old.shape:
            return old.to(new.dtype), old.numel()
        return self._columns(name, new, old)

    def _rows(self, new: Tensor, old: Tensor, key: str) -> tuple[Tensor, int] | None:
        """A table of classes, its null last; a class that the old model has not met starts as no
        class."""
        known = {name: row for row, name in enumerate(self.old_classes[key])}
        if old.shape[1:] != new.shape[1:] or len(old) != len(known) + 1:
            return None
        rows = [known.get(name, len(known)) for name in self.classes[key]] + [len(known)]
        met = sum(name in known for name in self.classes[key]) + 1
        return old[rows].to(new.dtype), met * new[0].numel()

    def check_maps(self) -> None:
        """Raises UserError where maps were exchanged: the columns of an input bear no names."""
        for path, embedder in self.embedders.items():
            maps, gone = embedder.maps, self._gone(path)
            if gone and maps:
                raise UserError(
                    f"the source reads the map {', '.join(gone)}, which this model does not, and "
                    f"this model reads {', '.join(maps)}: whose weights are whose can not be told. "
                    "Keep the maps of the source, and add others to them"
                )

    def _columns(self, name: str, new: Tensor, old: Tensor) -> tuple[Tensor, int] | None:
        """A weight that reads the latent's channels and the maps after them."""
        shapes = [(*x.shape[:1], *x.shape[2:]) for x in (new, old)]
        path = next((p for p in self.embedders if name.startswith(_above(p))), None)
        if path is None or new.ndim < 2 or shapes[0] != shapes[1]:
            return None
        maps, gone = self.embedders[path].maps, self._gone(path)
        kept = [key for key in maps if f"{path}.nulls.{key}" in self.partners]
        change = sum(maps.values()) - sum(maps[k] for k in kept) - sum(gone.values())
        added = new.shape[1] - old.shape[1]
        if not change or added % change or added // change < 1:
            return None
        return self._spread(new, old, maps, kept, added // change)

    def _spread(
        self, new: Tensor, old: Tensor, maps: Mapping[str, int], kept: list[str], unit: int
    ) -> tuple[Tensor, int]:
        """`unit` columns for each channel of a map; those of maps that are not kept are zero."""
        own = new.shape[1] - unit * sum(maps.values())
        columns = list(range(own))
        for key, channels in maps.items():
            start = len(columns) if key in kept else None
            columns += [-1] * (unit * channels)
            if start is not None:
                columns[start:] = range(start, len(columns))
        given = [i for i in columns if i >= 0]
        wide = torch.zeros_like(new)
        wide[:, given] = old[:, : len(given)].to(new.dtype)
        return wide, wide[:, given].numel()

    def _gone(self, path: str) -> dict[str, int]:
        """The channels of maps that the old model reads, and this one does not."""
        first = next((n for n in self.partners if n.startswith(f"{path}.")), None)
        above = path if first is None else self.partners[first].removesuffix(first[len(path) :])
        start, spec = f"{above}.nulls.", self.embedders[path].spec
        nulls = {n.removeprefix(start): x for n, x in self.old.items() if n.startswith(start)}
        vectors = {n.removeprefix(f"{above}.").split(".")[1] for n in self._vectors(above)}
        return {k: len(x) for k, x in nulls.items() if k not in vectors and k not in spec.names}

    def _vectors(self, path: str) -> list[str]:
        """Old names of what embeds numbers, tokens and vectors, which have nulls as well."""
        kinds = tuple(f"{path}.{kind}." for kind in ("scalars", "tokens", "latents"))
        return [n for n in self.old if n.startswith(kinds)]

    def starts_at_zero(
        self, taken: Mapping[str, Tensor], own: Mapping[str, Tensor]
    ) -> Iterator[str]:
        """New names of what embeds conditions that a backbone has not heard of so far."""
        for path, embedder in self.embedders.items():
            if not any(name.startswith(_above(path)) for name in taken):
                continue
            quiet = [f"{path}.{kind}.{key}" for kind, key in _quiet(embedder)]
            for name in own:
                if name not in taken and any(name.startswith(f"{q}.") or name == q for q in quiet):
                    yield name


def _quiet(embedder: ConditionEmbedder) -> Iterator[tuple[str, str]]:
    """What of an embedder must be zero for its conditions to say nothing, and can still learn:
    tokens keep their own layer and null, for what reads them starts at zero itself."""
    for kind in ("classes", "scalars", "latents", "vectors", "pooled"):
        for key in getattr(embedder, kind):
            yield kind, key
    for key in [*embedder.scalars, *embedder.latents, *embedder.maps]:
        yield "nulls", key


def _above(path: str) -> str:
    """The prefix of the names of the network that an embedder is in."""
    return path.rpartition(".")[0] + "."
