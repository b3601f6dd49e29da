"""The stages of a cascade, from what a configuration says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anylatent.core.denoisers import Network
from anylatent.core.generators.base import Generator
from anylatent.core.generators.cascade import NOISE, Cascade
from anylatent.core.generators.diffusion import Diffusion
from anylatent.core.latents import ConditionSpec, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.renamed import Renamed
from anylatent.core.registry import Maker, register
from anylatent.core.support.files import UserError

OWN = ("fields", "given", "shares", "source", "noise", "noise_drawn")


@register("generator", "cascade")
def cascade(
    inner: Maker[Generator],
    spec: LatentSpec,
    conditions: ConditionSpec,
    *,
    stages: Mapping[str, Any] = {},  # noqa: B006 - read only; {} is a plain default
) -> Cascade:
    """A generator for each field, or group of fields, given those before it (2106.15282).

    `stages` has settings by stage, which bears the name of its field: of groups such as `backbone`,
    in place of the run's own; `fields`, of a group of several fields with a name of its own;
    `given`, the earlier fields that it is told of, by default all; `shares` (or its name alone),
    the stage whose weights it has; `from`, a run whose generator it starts from; `noise`, up to
    which deviation what it is told is noisy in training, and `noise_drawn`, by default 0, the
    deviation in sampling: it is told how much that is (2106.15282).
    """
    plans, made, given = planned(spec, stages), dict[str, Generator](), dict[str, Sequence[str]]()
    before: list[str] = []
    for plan in plans:
        given[plan.name] = told = plan.told(before)
        known = _conditions(conditions, spec.take(told) if told else None, plan)
        own, network = spec.take(plan.fields), None
        if plan.shares is not None:
            network = _shared(plan, made, own, known)
        made[plan.name] = inner(spec=own, conditions=known, changes=plan.changes, network=network)
        before += plan.fields
    origins = {plan.name: plan.source for plan in plans if plan.source is not None}
    noises = {plan.name: plan.noises for plan in plans if plan.noises is not None}
    return Cascade(made, given, origins, spec, noises)


@dataclass(frozen=True)
class Plan:
    """One stage: the fields that it makes, what it is given, and what of it is not the run's."""

    name: str
    fields: Sequence[str]
    given: Sequence[str] | None
    shares: str | None
    source: str | None
    noises: tuple[float, float] | None
    changes: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, said: Any) -> Plan:
        said = {"shares": said} if isinstance(said, str) else dict(said or {})
        own = {key: said.pop(key, None) for key in OWN}
        noises = _noises(name, own.pop("noise"), own.pop("noise_drawn"))
        return cls(name, own.pop("fields") or [name], **own, noises=noises, changes=said)

    def told(self, before: Sequence[str]) -> list[str]:
        """The fields that it is told of, in their order."""
        unknown = [name for name in self.given or () if name not in before]
        if unknown:
            raise UserError(
                f"generator.stages.{self.name}.given: {', '.join(unknown)} is not made before it; "
                f"there is {', '.join(before) or 'nothing'}"
            )
        return [name for name in before if self.given is None or name in self.given]


def planned(spec: LatentSpec, stages: Mapping[str, Any]) -> list[Plan]:
    """The stages of a space, in the order of its fields. Raises UserError for fields that there are
    not, or that two of them make."""
    plans = [Plan.of(name, said) for name, said in stages.items()]
    taken = [field for plan in plans for field in plan.fields]
    unknown = [field for field in taken if field not in spec.fields]
    if unknown:
        raise UserError(
            f"generator.stages: there is no field {', '.join(unknown)}; the latents have "
            f"{', '.join(spec.fields)}. A stage of several has fields=[...]"
        )
    twice = sorted({field for field in taken if taken.count(field) > 1})
    if twice:
        raise UserError(f"generator.stages: two stages make {', '.join(twice)}")
    plans += [Plan.of(field, None) for field in spec.fields if field not in taken]
    order = list(spec.fields)
    return sorted(plans, key=lambda plan: min(order.index(field) for field in plan.fields))


def _noises(name: str, most: Any, drawn: Any) -> tuple[float, float] | None:
    """Of what a stage is told, the greatest deviation in training, and that in sampling."""
    if most is None and drawn is None:
        return None
    pair = float(most or 0.0), float(drawn or 0.0)
    if not 0 < pair[0] < math.inf or not 0 <= pair[1] <= pair[0]:
        raise UserError(
            f"generator.stages.{name}.noise={most} and noise_drawn={drawn}: a deviation above 0 of "
            "what it is told in training, and one from 0 to that in sampling"
        )
    return pair


def _conditions(conditions: ConditionSpec, given: LatentSpec | None, plan: Plan) -> ConditionSpec:
    """With the fields that are given, and how noisy they are."""
    if given is None:
        if plan.noises is not None:
            raise UserError(f"generator.stages.{plan.name}.noise: it is told nothing; leave it out")
        return conditions
    if plan.noises is not None:
        conditions = replace(conditions, scalars=[*conditions.scalars, NOISE])
    twice = [name for name in given.fields if name in conditions.names]
    if twice:
        raise UserError(
            f"generator=cascade: {', '.join(twice)} is a field and a condition: give the condition "
            "another name"
        )
    return replace(conditions, latents={**conditions.latents, **given.fields})


def _shared(
    plan: Plan, made: Mapping[str, Generator], spec: LatentSpec, conditions: ConditionSpec
) -> Network:
    """The backbone of an earlier stage in the place of an own one."""
    other, where = made.get(plan.shares or ""), f"generator.stages.{plan.name}={plan.shares}"
    if not isinstance(other, Diffusion):
        options = [name for name, stage in made.items() if isinstance(stage, Diffusion)]
        raise UserError(
            f"{where}: the stages before it whose weights it can share are "
            f"{', '.join(options) or 'none'}"
        )
    if "backbone" in plan.changes or plan.source is not None:
        raise UserError(f"{where}: it has the backbone of that stage, and no other of its own")
    backbone = other.denoiser.backbone

    def network(
        output: LatentSpec | None = None, maps: Mapping[str, int] | None = None
    ) -> Backbone:
        known = replace(conditions, maps={**conditions.maps, **(maps or {})})
        try:
            lent = None if output is not None else backbone.lent(spec, known)
            return lent or Renamed(backbone, spec, known, output)
        except ValueError as error:
            raise UserError(
                f"{where}: {error}. Stages that share weights make the same, told of the same: "
                f"give generator.stages.{plan.name}.given the fields that it is to be told of"
            ) from None

    return network
