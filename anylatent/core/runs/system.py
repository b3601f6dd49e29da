"""A configuration made into objects: the whole model, from data to latents to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.denoisers import Denoiser, NoisyClassifier
from anylatent.core.generators import Callback, Generator, Guidance
from anylatent.core.inverse import Completion, begin_with
from anylatent.core.latents import Condition, Latent, LatentSpec, Noise, Normaliser, Started
from anylatent.core.modality import ClassLabel, Conditioner, Modality, Outputs, move
from anylatent.core.nn.backbone import Backbone
from anylatent.core.process import Grid, Schedule
from anylatent.core.registry import build, part
from anylatent.core.runs.config import Config
from anylatent.core.solvers import Solver
from anylatent.core.support.files import UserError


class System(nn.Module):
    """Modality, conditioner, autoencoder, normaliser and generator, built from a configuration.

    `facts` are what the data said about themselves (shape, class names). Sizes flow from one
    object to the next: the autoencoder's spec and the conditioner's make the backbone.
    """

    modality: Modality
    conditioner: Conditioner
    autoencoder: Autoencoder
    normaliser: Normaliser
    generator: Generator
    schedule: Schedule

    def __init__(self, config: Config, facts: Mapping[str, Any], training: bool = False) -> None:
        """`training` also builds the networks that only the losses use."""
        super().__init__()
        shared = dict(facts)
        self.modality = build("modality", config["modality"], **shared)
        shared["modality"] = self.modality
        self.conditioner = build("conditioner", config["conditioner"], **shared)
        self.autoencoder = build("autoencoder", config["autoencoder"], **shared)
        if training:
            self.autoencoder.equip()
        self.normaliser = Normaliser(self.autoencoder.spec)
        schedule = build("schedule", config["schedule"])
        self.__dict__["schedule"] = schedule  # no module of its own: it learns in the denoiser
        objective = build(
            "objective",
            config["objective"],
            times=build("times", config["times"]),
            weighting=build("weighting", config["weighting"]),
        )
        codebook = self.autoencoder.codebook()
        shared |= {"objective": objective, "tells": objective.tells, "codebook": codebook}
        if "denoiser" in part("generator", config["generator"]["name"]).parameters():
            shared["denoiser"] = self._denoiser(config, schedule, shared)
        self.generator = build(
            "generator", config["generator"], conditions=self.conditioner.spec, **shared
        )
        self.labels: dict[str, ClassLabel] = {}
        self.classifiers: dict[str, NoisyClassifier] = {}
        self.networks = nn.ModuleList()  # of the classifiers, whose labels may have any name

    def _denoiser(self, config: Config, schedule: Schedule, shared: Mapping[str, Any]) -> Denoiser:
        older = {"name": "preconditioned", "data_std": config.get("data_std", 1.0)}
        denoiser: Denoiser = build(
            "denoiser",
            config.get("denoiser") or older,  # a run from before there was a choice
            network=partial(self._network, config),
            schedule=schedule,
            prediction=build("prediction", config["prediction"]),
            spec=self.autoencoder.spec,
            **shared,
        )
        return denoiser

    def _network(
        self,
        config: Config,
        output: LatentSpec | None = None,
        maps: Mapping[str, int] | None = None,
    ) -> Backbone:
        """The configured backbone for the autoencoder's latents and the conditioner's conditions.

        Raises UserError for a backbone that can't return another space than its input's.
        """
        conditions, wanted = self.conditioner.spec, {}
        if maps:
            conditions = replace(conditions, maps={**conditions.maps, **maps})
        if output is not None:
            wanted["output"] = output
            if "output" not in part("backbone", config["backbone"]["name"]).parameters():
                raise UserError(
                    f"backbone={config['backbone']['name']} returns latents like its input, but "
                    f"this denoiser needs {output}: use denoiser=preconditioned, or a backbone "
                    "with the parameter `output`"
                )
        backbone: Backbone = build(
            "backbone",
            config["backbone"],
            spec=self.autoencoder.spec,
            conditions=conditions,
            **wanted,
        )
        return backbone

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def steer_by(self, label: str, names: Sequence[str], classifier: NoisyClassifier) -> None:
        """Lets guidance by classifiers ask for a label whose values have these names."""
        self.labels[label] = ClassLabel({label: names}, label)
        self.classifiers[label] = classifier
        self.networks.append(classifier)

    def columns(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a batch that the conditioner reads."""
        return {name: batch[name] for name in self.conditioner.spec.names if name in batch}

    def condition(self, columns: Mapping[str, Any]) -> Condition | None:
        """The condition of a batch from raw columns, one entry per sample; None without any.

        It includes the labels of classifiers, which their guidance takes out.
        """
        known = self.columns(columns)
        cond = self.conditioner(known) if known else Condition()
        for name, label in self.labels.items():
            if name in columns:
                own = label({name: columns[name]})
                cond = Condition({**cond.values, **own.values}, {**cond.keep, **own.keep})
        return cond.to(self.device) if cond else None

    @property
    def asks(self) -> list[str]:
        """The names that a user may give as `cond.name=...`."""
        own = [*self.conditioner.spec.names, *self.modality.asks]
        return list(dict.fromkeys([*own, *self.labels]))

    @torch.no_grad()
    def sample(
        self,
        noise: Noise,
        columns: Mapping[str, Any],
        solver: Solver,
        grid: Grid,
        steps: int,
        guidance: Guidance | None,
        callback: Callback | None = None,
    ) -> Outputs:
        """Decoded samples, one for each seed of `noise`."""
        blank = self.blank(noise, columns)
        cond, known = self.condition(columns), self.modality.known(blank, columns)
        if known is not None:
            guidance = self.completing(known, blank, guidance)
        z = self.generator.sample(blank, cond, solver, grid, steps, guidance, noise, callback)
        outputs = self.decode(z)
        return outputs if known is None else self.modality.complete(outputs, known)

    def blank(self, noise: Noise, columns: Mapping[str, Any]) -> Latent:
        """The zero latent that samples start from, of sizes that are asked for or drawn, those of
        noise that is given, or as large as a generator may need."""
        spec = self.autoencoder.spec
        if isinstance(noise, Started):
            return self._started(noise.start, columns)
        if not self.generator.ends:
            return self.modality.blank(spec, noise.batch, noise, columns).to(self.device)
        asked = [name for name in self.modality.asks if columns.get(name) is not None]
        if asked:
            raise UserError(
                f"cond.{asked[0]}: {type(self.generator).__name__} writes samples from beginning "
                "to end and decides itself where that is; leave it out, or train "
                "generator=diffusion"
            )
        return self.modality.room(spec, noise.batch, columns).to(self.device)

    def _started(self, start: Latent, columns: Mapping[str, Any]) -> Latent:
        if self.generator.ends:
            raise UserError(
                f"{type(self.generator).__name__} writes samples from beginning to end and starts "
                "from no noise: leave out noise="
            )
        blank = start.zeros().to(self.device)
        for name in self.modality.asks:
            asked = {name: columns[name]} if columns.get(name) is not None else {}
            if asked and self.modality.known(blank, asked) is None:
                raise UserError(f"cond.{name}: noise that is given has its own sizes; leave it out")
        return blank

    def completing(
        self, known: Mapping[str, Any], blank: Latent, guidance: Guidance | None
    ) -> Guidance:
        """Guidance towards samples that contain known data, after any other."""
        moved = move(known, self.device)
        given = moved.pop("given", None)
        begun = self.normaliser.encode(self.autoencoder.encode(moved).mean)
        if given is None:
            begun, places = begin_with(begun, blank)
        elif begun.masks:
            places = dict.fromkeys(begun.parts, given)
        else:
            raise UserError(
                "parts of a sample can be given where each has a latent of its own, but the "
                f"{type(self.autoencoder).__name__} mixes them into {begun.spec}"
            )
        return lambda denoiser: Completion(
            denoiser if guidance is None else guidance(denoiser),
            begun,
            places,
            self.modality.completion,
        )

    @torch.no_grad()
    def decode(self, z: Latent) -> Outputs:
        """Outputs of latents in the diffusion model's scale."""
        return self.autoencoder.decode(self.normaliser.decode(z))

    # ---- weights ------------------------------------------------------------------------------
    def trained(self) -> dict[str, Tensor]:
        """The weights that a run needs to sample: nothing that only a loss needs."""
        return {
            f"{name}.{key}": value
            for name in ("autoencoder", "normaliser", "generator")
            for key, value in getattr(self, name).state_dict().items()
            if name != "autoencoder" or key.split(".")[0] not in self.autoencoder.for_loss
        }

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies weights in; names and shapes must be exactly those of this architecture."""
        own = self.trained()
        problems = [f"missing {name}" for name in own if name not in tensors]
        problems += [f"unknown {name}" for name in tensors if name not in own]
        problems += [
            f"{name} has shape {tuple(tensors[name].shape)}, wanted {tuple(value.shape)}"
            for name, value in own.items()
            if name in tensors and tensors[name].shape != value.shape
        ]
        if problems:
            shown = "; ".join(problems[:4]) + (" ..." if len(problems) > 4 else "")
            raise UserError(
                f"the weights are of another architecture than the configuration says "
                f"({len(problems)} differences: {shown})"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensors[name])
