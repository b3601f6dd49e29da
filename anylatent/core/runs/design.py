"""What a generator is made from: parts of a configuration, for a space and its conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from anylatent.core.denoisers import Denoiser, Network
from anylatent.core.generators import Generator
from anylatent.core.latents import Codebook, ConditionSpec, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.objectives import Objective
from anylatent.core.registry import build, part
from anylatent.core.runs.config import ModelConfig, Node
from anylatent.core.support.files import UserError

OF_A_RUN = ("modality", "conditioner", "autoencoder")
"""Groups of a model that all parts of its generator share."""


@dataclass(frozen=True)
class Design:
    """A generator that is not built yet, of latents of `spec` under `conditions`.

    `codebook` is that of the latents; `network` makes its backbone in place of the configured one.
    """

    config: ModelConfig
    spec: LatentSpec
    conditions: ConditionSpec
    codebook: Codebook | None = None
    network: Network | None = None

    def generator(self) -> Generator:
        """Built from the parts that it asks for, each of which gets its own."""
        wanted = part("generator", self.config.generator["name"]).parameters()
        given: dict[str, Any] = {"spec": self.spec, "conditions": self.conditions}
        given |= {"codebook": self.codebook, "inner": self.inner}
        if "objective" in wanted or "denoiser" in wanted:
            given["objective"] = self._objective()
        if "denoiser" in wanted:
            given["denoiser"] = self._denoiser(given["objective"])
        found: Generator = build("generator", self.config.generator, **given)
        return found

    def inner(
        self,
        spec: LatentSpec,
        conditions: ConditionSpec,
        changes: Mapping[str, Any],
        network: Network | None = None,
    ) -> Generator:
        """A generator of a part of the latents, by default a diffusion model of the same parts with
        `changes` of some groups: a name, settings, or `{name: ..., settings}`."""
        config = changed(self.config, {"generator": {"name": "diffusion"}, **changes})
        tokens = self.codebook is not None and self.codebook.spec == spec
        codebook = self.codebook if tokens else None
        return Design(config, spec, conditions, codebook, network).generator()

    def _objective(self) -> Objective:
        objective: Objective = build(
            "objective",
            self.config.objective,
            times=build("times", self.config.times),
            weighting=build("weighting", self.config.weighting),
        )
        return objective

    def _denoiser(self, objective: Objective) -> Denoiser:
        denoiser: Denoiser = build(
            "denoiser",
            self.config.denoiser,
            network=self.network or self._network,
            schedule=build("schedule", self.config.schedule),
            prediction=build("prediction", self.config.prediction),
            spec=self.spec,
            tells=objective.tells,
            codebook=self.codebook,
        )
        return denoiser

    def _network(
        self, output: LatentSpec | None = None, maps: Mapping[str, int] | None = None
    ) -> Backbone:
        """The configured backbone for the latents and the conditions.

        Raises UserError for a backbone that can't return another space than its input's.
        """
        conditions, wanted = self.conditions, {}
        if maps:
            conditions = replace(conditions, maps={**conditions.maps, **maps})
        if output is not None:
            wanted["output"] = output
            name = self.config.backbone["name"]
            if "output" not in part("backbone", name).parameters():
                raise UserError(
                    f"backbone={name} returns latents like its input, but this denoiser needs "
                    f"{output}: use denoiser=preconditioned, or a backbone with the parameter "
                    "`output`"
                )
        backbone: Backbone = build(
            "backbone", self.config.backbone, spec=self.spec, conditions=conditions, **wanted
        )
        return backbone


def changed(config: ModelConfig, changes: Mapping[str, Any]) -> ModelConfig:
    """The configuration with other parts, or other settings of the same ones.

    Raises UserError for what is no group of a generator.
    """
    known = [field.name for field in fields(config) if field.name not in OF_A_RUN]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise UserError(
            f"a part of a generator has no {', '.join(unknown)} of its own; it may have other "
            f"{', '.join(known)}"
        )
    nodes = {name: _merged(getattr(config, name), value) for name, value in changes.items()}
    return replace(config, **nodes)


def _merged(node: Node, change: Any) -> Node:
    """Another part, by name or with its settings; or other settings of this one."""
    if isinstance(change, str):
        return {"name": change}
    if not isinstance(change, Mapping):
        raise UserError(f"{node['name']}: settings {{...}} are wanted, or a name, got {change!r}")
    if "name" in change:
        return dict(change)
    inner = {k: v for k, v in change.items() if isinstance(node.get(k), Mapping)}
    return {**node, **change, **{key: _merged(node[key], value) for key, value in inner.items()}}
