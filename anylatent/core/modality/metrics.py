"""Figures of samples and reconstructions: metrics, each registered by a name, and lists of them.

A figure is added to a modality from anywhere, in one file:

    @al.register("metric", "brightness")
    class Brightness(al.Metric):
        modality = "image"

        def samples(self, outputs, columns):
            return {"brightness": float(outputs.tensor.mean())}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from torch import Tensor

from anylatent.core.modality.data import Data
from anylatent.core.modality.modality import Modality
from anylatent.core.modality.outputs import Outputs
from anylatent.core.registry import RegistryError, build, get, group, names
from anylatent.core.support.files import UserError

Node: TypeAlias = Mapping[str, Any]
Row: TypeAlias = dict[str, float]
"""Figures by name; one without meaning, such as uniqueness of none, is left out."""


class Metric:
    """A few figures of samples, of reconstructions or of both, against one data set.

    It is built with the `data` and the `modality` if its constructor names them; what costs time
    (features of real data, networks that judge) is made at first use. `modality` names the modality
    that it is for, "" any; `place` says where its figures stand in a table: those that come with a
    modality have the first places, others follow by their names.
    """

    modality: ClassVar[str] = ""
    place: ClassVar[int] = 100

    @classmethod
    def applies(cls, modality: Modality, data: Data) -> bool:
        """Whether it has figures of such outputs and data."""
        if not cls.modality:
            return True
        kind = get("modality", cls.modality) if cls.modality in names("modality") else None
        return isinstance(kind, type) and isinstance(modality, kind)

    @property
    def notes(self) -> Sequence[str]:
        """What must be said below the table, such as where a row comes from."""
        return ()

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> Row:
        """Figures of a set of samples drawn under the conditions in `columns`, against the data."""
        return {}

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> Row:
        """Figures of how well an autoencoder restores its input."""
        return {}

    def unrestored(self, originals: Outputs) -> Row:
        """Those of `reconstructions` that the originals have without being restored, a row beside:
        none of what is an error."""
        return {}

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, Row]:
        """The same figures as `samples` for held-out data, and for data made worse, by row name.

        `conditions` names the columns under which samples are drawn. Rows of the same name that
        several metrics have are one row.
        """
        return {}

    def completions(
        self,
        originals: Outputs,
        outputs: Sequence[Outputs],
        given: Tensor,
        columns: Mapping[str, Any],
    ) -> dict[str, Row]:
        """Figures of samples that had to contain known data, by row name: the samples' own rows,
        and those of simple guesses beside them.

        `outputs` are K completions of each of the `originals`, `given` (B, T) bool says which of
        the entries were given, `columns` are those of the originals. Rows of the same name that
        several metrics have are one row.
        """
        return {}


group("metric", Metric, offers={"data": Data, "modality": Modality}, chosen=False)


class Metrics:
    """Several metrics as one: their figures in one table, one after another.

    Raises UserError where two of them give a figure of the same name.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = tuple(metrics)

    @classmethod
    def of(
        cls,
        modality: Modality,
        data: Data,
        chosen: str | Node | Sequence[str | Node] | None = None,
    ) -> Metrics:
        """All registered metrics that apply to the data, or those `chosen`: by name, or with
        settings as `{name: ..., setting: ...}`.

        Raises UserError for a name that is not among them.
        """
        kinds = {name: _kind(name) for name in names("metric")}
        apply = [name for name, kind in kinds.items() if kind.applies(modality, data)]
        some = [chosen] if isinstance(chosen, (str, Mapping)) else chosen
        listed = apply if some is None else some
        nodes = [node if isinstance(node, Mapping) else {"name": str(node)} for node in listed]
        wanted = {str(node.get("name")): node for node in nodes}
        wrong = [name for name in wanted if name not in apply]
        if wrong:
            raise UserError(
                f"metrics=[{','.join(wrong)}]: not for {type(modality).__name__} and its data; "
                f"choose among {', '.join(apply) or 'none'}"
            )
        order = sorted(wanted, key=lambda name: (kinds[name].place, name))
        return cls(build("metric", wanted[n], modality=modality, data=data) for n in order)

    @property
    def notes(self) -> Sequence[str]:
        """Those of all metrics."""
        return [note for metric in self.metrics for note in metric.notes]

    def samples(self, outputs: Outputs, columns: Mapping[str, Any]) -> Row:
        """Figures of a set of samples drawn under the conditions in `columns`."""
        return _joined((m, m.samples(outputs, columns)) for m in self.metrics)

    def reconstructions(self, originals: Outputs, outputs: Outputs) -> Row:
        """Figures of how well an autoencoder restores its input."""
        return _joined((m, m.reconstructions(originals, outputs)) for m in self.metrics)

    def unrestored(self, originals: Outputs) -> Row:
        """Those that the originals have without being restored."""
        return _joined((m, m.unrestored(originals)) for m in self.metrics)

    def baselines(self, conditions: Sequence[str] = ()) -> dict[str, Row]:
        """The figures of `samples` for held-out data, and for data made worse, by row name."""
        return _merged([(m, m.baselines(conditions)) for m in self.metrics])

    @property
    def judge_completions(self) -> bool:
        """Whether any of them has figures of those."""
        return any(type(m).completions is not Metric.completions for m in self.metrics)

    def completions(
        self,
        originals: Outputs,
        outputs: Sequence[Outputs],
        given: Tensor,
        columns: Mapping[str, Any],
    ) -> dict[str, Row]:
        """Figures of K completions of each original, by row name. See `Metric.completions`."""
        how = (originals, outputs, given, columns)
        return _merged([(m, m.completions(*how)) for m in self.metrics])


def _kind(name: str) -> type[Metric]:
    kind = get("metric", name)
    if not isinstance(kind, type):  # which could not be asked whether it applies
        raise RegistryError(f"metric={name} must be a subclass of anylatent.Metric, got {kind}")
    return kind


def _merged(found: Sequence[tuple[Metric, dict[str, Row]]]) -> dict[str, Row]:
    """Tables as one: rows of the same name are one row."""
    rows = dict.fromkeys(name for _, table in found for name in table)
    return {row: _joined((m, table[row]) for m, table in found if row in table) for row in rows}


def _joined(parts: Iterable[tuple[Metric, Row]]) -> Row:
    row: Row = {}
    owners: dict[str, str] = {}
    for metric, figures in parts:
        own = type(metric).__name__
        for figure in figures:
            if figure in owners:
                raise UserError(
                    f"two metrics give the figure '{figure}': {owners[figure]} and {own}; rename "
                    "one, or leave one out by metrics=[...]"
                )
            owners[figure] = own
        row |= figures
    return row
