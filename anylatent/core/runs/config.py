"""What a run is made from and how it is sampled, as typed values: read once, at the border."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeAlias, TypeVar, get_type_hints

from anylatent.core.support.files import UserError
from anylatent.core.support.kinds import fits, words

Node: TypeAlias = Mapping[str, Any]
"""A part of a configuration, `{name: ..., settings}`, from which `registry.build` constructs it."""

Read = TypeVar("Read")


@dataclass(frozen=True)
class ModelConfig:
    """The parts that a model is built from, by group."""

    modality: Node
    conditioner: Node
    autoencoder: Node
    backbone: Node
    schedule: Node
    prediction: Node
    times: Node
    weighting: Node
    objective: Node
    denoiser: Node
    generator: Node

    def __post_init__(self) -> None:
        check_nodes(self)


@dataclass(frozen=True)
class SamplingConfig:
    """How samples are drawn: parts, and the number of steps."""

    solver: Node
    grid: Node
    guidance: Node | None
    steps: int

    def __post_init__(self) -> None:
        check_nodes(self)


@dataclass(frozen=True)
class RunConfig:
    """What a run directory tells: the model, its data and what they say of themselves, how it is
    sampled, and how each stage was trained; where it was started from, what it took of it, and by
    which tuning."""

    model: ModelConfig
    data: Node
    facts: Mapping[str, Any]
    sampling: SamplingConfig
    training: Mapping[str, Mapping[str, Any]]
    seed: int = 0
    source: str | None = None
    take: str = "all"
    tuning: Node | None = None

    def __post_init__(self) -> None:
        check_nodes(self, "data", "tuning")

    @property
    def classes(self) -> Mapping[str, list[str]]:
        """The class columns of the data, and the names of their values."""
        found: Mapping[str, list[str]] = self.facts["classes"]
        return found


def check_nodes(config: object, *names: str) -> None:
    """Raises UserError for a field that names no part; by default of all that are mappings."""
    for name in names or [known.name for known in fields(config)]:  # type: ignore[arg-type]
        node = getattr(config, name)
        if isinstance(node, Mapping) and not isinstance(node.get("name"), str):
            raise UserError(f"{name} must be given as {{name: ..., settings}}, got {dict(node)}")


def inline(default: Callable[[], Any] | None = None) -> Any:
    """A field of a dataclass whose own fields stand beside the others where it is read from, as the
    parts of a model do on the command line."""
    if default is None:
        return field(metadata={"inline": True})
    return field(default_factory=default, metadata={"inline": True})


def read(kind: type[Read], values: Mapping[str, Any], where: str, strict: bool = False) -> Read:
    """A configuration from plain values, of which it takes those that it has fields for; `strict`
    ones must have nothing else.

    Raises UserError, naming the place and the key, for one that is missing or of another kind.
    """
    if strict:
        _check_known(kind, values)
    found, hints = {}, get_type_hints(kind)
    for known in fields(kind):  # type: ignore[arg-type]
        name, inner = known.name, hints[known.name]
        if known.metadata.get("inline"):
            found[name] = read_value(inner, values.get(name, values), where)
        elif name in values:
            found[name] = read_value(inner, values[name], f"{where}: {name}")
        elif known.default is MISSING and known.default_factory is MISSING:
            raise UserError(f"{where} lacks the key {name}")
    return kind(**found)


def _check_known(kind: type[Any], values: Mapping[str, Any], place: str = "") -> None:
    """Raises UserError for keys that there are no fields for."""
    hints, own = get_type_hints(kind), dict[str, Any]()
    for known in fields(kind):
        inner = hints[known.name]
        own |= get_type_hints(inner) if known.metadata.get("inline") else {known.name: inner}
    unknown = [f"{place}{key}" for key in values if key not in own]
    if unknown:
        what = f"{place.rstrip('.')} has" if place else "there are"
        allowed = ", ".join(own)
        raise UserError(f"there is no setting {', '.join(unknown)}; {what} {allowed}")
    for key, value in values.items():
        if isinstance(own[key], type) and is_dataclass(own[key]) and isinstance(value, Mapping):
            _check_known(own[key], value, f"{place}{key}.")


def read_value(kind: Any, value: Any, where: str) -> Any:
    """A value of a field of this kind, which is a configuration itself where the kind is one.

    Raises UserError, naming the place, for one of another kind.
    """
    if not (isinstance(kind, type) and is_dataclass(kind)):
        if not fits(value, kind):
            raise UserError(f"{where} must be {words(kind)}, got {value!r}")
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must have keys of its own, got {value!r}")
    return read(kind, value, where)
