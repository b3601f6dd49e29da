"""A configuration made into objects: the whole model, from data to latents to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.denoisers import NoisyClassifier
from anylatent.core.generators import Generator
from anylatent.core.latents import Condition, Latent, Normaliser
from anylatent.core.modality import ClassLabel, Conditioner, Modality, Outputs
from anylatent.core.process import Schedule
from anylatent.core.registry import build
from anylatent.core.runs.config import ModelConfig
from anylatent.core.runs.design import Design
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

    def __init__(
        self, config: ModelConfig, facts: Mapping[str, Any], training: bool = False
    ) -> None:
        """`training` also makes the networks that only the losses use."""
        super().__init__()
        shared = dict(facts)
        self.modality = build("modality", config.modality, **shared)
        self.conditioner = build("conditioner", config.conditioner, **shared)
        self.autoencoder = build(
            "autoencoder", config.autoencoder, modality=self.modality, **shared
        )
        if training:
            self.autoencoder.equip()
        self.normaliser = self.autoencoder.normaliser()
        codebook = self.autoencoder.codebook()
        design = Design(config, self.autoencoder.spec, self.conditioner.spec, codebook)
        self.generator = design.generator()
        self.labels: dict[str, ClassLabel] = {}
        self.classifiers: dict[str, NoisyClassifier] = {}
        self.networks = nn.ModuleList()  # of the classifiers, whose labels may have any name

    @property
    def schedule(self) -> Schedule:
        """Of the noise that the generator's samples come from. Raises UserError without any."""
        schedule = self.generator.schedule
        if schedule is None:
            raise UserError(
                f"{type(self.generator).__name__} makes samples from no noise, or several parts "
                "of them from noise of their own: it has no schedule of all, and no noisy latents "
                "that could be classified"
            )
        return schedule

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    # ---- conditions ---------------------------------------------------------------------------
    def add_classifier(self, label: str, names: Sequence[str], classifier: NoisyClassifier) -> None:
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
