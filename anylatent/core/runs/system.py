"""A configuration made into objects: the whole model, from data to latents to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.autoencoders import Autoencoder, FrozenEncoder
from anylatent.core.denoisers import NoisyClassifier
from anylatent.core.generators import Generator
from anylatent.core.latents import Condition, Latent, Noise, Normaliser
from anylatent.core.modality import ClassLabel, Conditioner, Modality, Outputs
from anylatent.core.process import Schedule
from anylatent.core.registry import build, check_facts
from anylatent.core.runs.config import ModelConfig
from anylatent.core.runs.design import Design
from anylatent.core.support.files import UserError

PARTS = ("autoencoder", "normaliser", "conditioner", "generator")
"""The modules of a model whose weights a run keeps; most conditioners have none."""


class System(nn.Module):
    """Modality, conditioner, autoencoder, normaliser and generator, built from a configuration.

    `facts` are what the data said about themselves (shape, class names). Sizes flow from one
    object to the next: the autoencoder's spec and the conditioner's make the backbone. `learned`
    names the weights of a conditioner that learn, on which nothing depends that is computed once.
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
        check_facts(facts)
        shared = dict(facts)
        self.modality = modality = build("modality", config.modality, **shared)
        self.autoencoder = build("autoencoder", config.autoencoder, modality=modality, **shared)
        frozen = FrozenEncoder(self.autoencoder)
        self.conditioner = build("conditioner", config.conditioner, autoencoder=frozen, **shared)
        learning = [n for n, p in self.conditioner.named_parameters() if p.requires_grad]
        self.learned = frozenset(f"conditioner.{name}" for name in learning)
        if training:
            self.autoencoder.equip()
        self.normaliser = self.autoencoder.normaliser()
        codebook = self.autoencoder.codebook()
        design = Design(config, self.autoencoder.spec, self.conditioner.spec, codebook)
        self.generator = design.generator()
        self.labels: dict[str, ClassLabel] = {}
        self.classifiers: dict[str, NoisyClassifier] = {}
        self.networks = nn.ModuleList()  # of the classifiers, whose labels may have any name
        _check_sizes(self)

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

    def latents(self, batch: Mapping[str, Any], noise: Noise) -> Latent:
        """Of data, drawn from their posteriors, as the generator has them: normalised."""
        return self.normaliser.encode(self.autoencoder.encode(batch).sample(noise))

    # ---- conditions ---------------------------------------------------------------------------
    def add_classifier(self, label: str, names: Sequence[str], classifier: NoisyClassifier) -> None:
        """Lets guidance by classifiers ask for a label whose values have these names."""
        conditioner = self.conditioner
        if (label in conditioner.columns) != (label in conditioner.spec.names):
            raise UserError(
                f"the conditioner makes the conditions {', '.join(conditioner.spec.names)} of the "
                f"columns {', '.join(conditioner.columns)}: beside them cond.{label} can not be "
                f"the label of a classifier too"
            )
        self.labels[label] = ClassLabel({label: names}, label)
        self.classifiers[label] = classifier
        self.networks.append(classifier)

    def columns(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a batch that the conditioner reads."""
        return {name: batch[name] for name in self.conditioner.columns if name in batch}

    def read(self, columns: Mapping[str, Any]) -> Condition | None:
        """What the conditioner computes once of raw columns, one entry per sample; None without
        any. `finished` makes of it what a backbone embeds."""
        known = self.columns(columns)
        cond = self.conditioner(known) if known else None
        return cond.to(self.device) if cond else None

    def finished(self, cond: Condition | None, noise: Noise | None = None) -> Condition | None:
        """The condition as it is now: varied, where there is noise for that, and learned."""
        if cond is None:
            return None
        varied = cond if noise is None else self.conditioner.vary(cond, noise)
        return self.conditioner.learned(varied)

    def condition(self, columns: Mapping[str, Any], noise: Noise | None = None) -> Condition | None:
        """The condition of a batch from raw columns, one entry per sample; None without any.

        With noise, a variant of it. It includes the labels of classifiers, which their guidance
        takes out.
        """
        cond = self.finished(self.read(columns), noise) or Condition()
        for name, label in self.labels.items():
            if name in columns:
                own = label({name: columns[name]}).to(self.device)
                values, keep = {**cond.values, **own.values}, {**cond.keep, **own.keep}
                cond = Condition(values, keep, cond.always)
        return cond or None

    @property
    def asks(self) -> list[str]:
        """The names that a user may give as `cond.name=...`."""
        own = [*self.conditioner.columns, *self.modality.asks]
        return list(dict.fromkeys([*own, *self.labels]))

    @torch.no_grad()
    def decode(self, z: Latent) -> Outputs:
        """Outputs of latents in the diffusion model's scale."""
        return self.autoencoder.decoded(self.normaliser.decode(z))

    # ---- weights ------------------------------------------------------------------------------
    def trained(self) -> dict[str, Tensor]:
        """The weights that a run needs to sample: nothing that only a loss needs."""
        spared = tuple(f"autoencoder.{name}." for name in self.autoencoder.for_loss)
        named = (
            (f"{name}.{key}", value)
            for name in PARTS
            for key, value in getattr(self, name).state_dict().items()
        )
        return {name: value for name, value in named if not name.startswith(spared)}

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
        problems += [
            f"{name} has numbers of type {tensors[name].dtype}, wanted {value.dtype}"
            for name, value in own.items()
            if name in tensors and tensors[name].is_floating_point() != value.is_floating_point()
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


def _check_sizes(system: System) -> None:
    """Raises UserError for networks of no width, which would compute with nothing."""
    for name, value in system.named_parameters():
        if not value.numel():
            raise UserError(
                f"{name} would have the shape {tuple(value.shape)}, without an entry: a width, a "
                "number of channels or the like in the configuration is 0"
            )
