"""The generator of a trained run within another, which draws with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from anylatent.core.generators import Around, Generator
from anylatent.core.registry import build, names, part
from anylatent.core.runs.config import Node
from anylatent.core.runs.system import System
from anylatent.core.support.files import UserError


def within(system: System, node: Node | None) -> None:
    """Puts the generator of a model into the one that is asked for, if any, and keeps the one that
    it was put into. Raises UserError for one that has weights of its own."""
    if node is None:
        return
    own, name = system.generator, node["name"]
    if not _is_around(name):
        known = ", ".join(option for option in names("generator") if _is_around(option))
        raise UserError(
            f"generator={name} has weights of its own, which this run was not trained with: around "
            f"its generator there can be {known}"
        )

    def inner(*, changes: Mapping[str, Any], **_: Any) -> Generator:
        if changes.get("generator", "diffusion") != "diffusion":
            raise UserError(
                f"generator.of={changes['generator']}: it is the run's own; leave it out"
            )
        return own

    spec, conditions = own.spec, system.conditioner.spec
    system.generator = build("generator", node, inner=inner, spec=spec, conditions=conditions)


def _is_around(name: str) -> bool:
    """Whether a registered generator is one around another."""
    made = part("generator", name).factory
    kind = made if isinstance(made, type) else get_type_hints(made).get("return")
    return isinstance(kind, type) and issubclass(kind, Around)
