"""Classifiers of noisy latents, trained after a diffusion model, which guidance follows.

A run keeps one for a label in `classifiers/<label>.safetensors`: averaged weights, and as metadata
in JSON what they were built from. Loading executes nothing: a file can name registered backbones
only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from anylatent.core.backbone import Backbone
from anylatent.core.condition import ConditionSpec
from anylatent.core.denoiser import network_input
from anylatent.core.files import UserError, load_weights, save_weights
from anylatent.core.latent import Field, Latent, LatentSpec
from anylatent.core.registry import RegistryError, build
from anylatent.core.schedules import Schedule, Time, as_time

Classify: TypeAlias = Callable[[Latent, Time], Tensor]
"""x_t, t → log p(class | x_t), shape (B, classes)."""


class NoisyClassifier(nn.Module):
    """log p(class | x_t) = log softmax(b + c·W·f), f what a backbone makes of c_in·x_t.

    c = α/√(α² + σ²): the exact posterior is its prior plus terms of order α, and with this factor
    σ²/α times its gradient, which guidance adds to x0, stays of order one at every noise level.

    f has the mean over the entries of each field of variable length, all numbers of a fixed one,
    and the mean squared length of the entries of a centred one, which no rotation changes. So it
    depends on no padding. `backbone`: for the latents alone, without conditions. `classes`: their
    number. x_t of any shape of its spec, t of shape (), (B,) or (B, T) → (B, classes).
    """

    def __init__(self, backbone: Backbone, schedule: Schedule, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {classes}")
        self.backbone, self.schedule = backbone, schedule
        sizes = [_features(field) for field in backbone.spec.fields.values()]
        self.head = nn.Linear(sum(sizes), classes)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Latent, t: Time) -> Tensor:
        t = as_time(t)
        scaled, c_noise = network_input(self.schedule, x, t, 1.0)
        output: Latent = self.backbone(scaled, c_noise)
        output = output.to(x.dtype).project()
        features = torch.cat([_reduce(output, name) for name in output.parts], 1)
        alpha, sigma = self.schedule.coefficients(t)
        share = alpha * (alpha**2 + sigma**2).rsqrt()
        if share.ndim == 2:  # one time per frame
            share = share.mean(1)
        share = share.to(features.device, features.dtype).reshape(-1, 1)
        logits = self.head(share * features)
        return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), -1)


def _features(field: Field) -> int:
    """How many numbers a field gives."""
    if field.centred:
        return 1
    return math.prod(field.rest) * (1 if field.variable else int(field.shape[0] or 0))


def _reduce(output: Latent, name: str) -> Tensor:
    """The numbers of a field, (B, features)."""
    x, field = output[name], output.spec.fields[name]
    count = output.lengths(name).to(x)[:, None]
    if field.centred:
        return x.square().flatten(1).sum(1, keepdim=True) / count
    return x.sum(1).flatten(1) / count if field.variable else x.flatten(1)


@dataclass(frozen=True)
class Classification:
    """What a classifier is of and made of: the label's column, its classes, the backbone's node.

    `how` holds whatever else its training depended on, as plain values.
    """

    label: str
    classes: tuple[str, ...]
    backbone: Mapping[str, Any]
    how: Mapping[str, Any]

    def build(self, spec: LatentSpec, schedule: Schedule) -> NoisyClassifier:
        """With fresh weights, for latents of `spec`."""
        backbone = build("backbone", self.backbone, spec=spec, conditions=ConditionSpec())
        return NoisyClassifier(backbone, schedule, len(self.classes))

    @property
    def stage(self) -> str:
        """The name of its training in checkpoints and logs."""
        return f"classifier_{self.label}"

    def path(self, run: Path) -> Path:
        """Where a run keeps it."""
        return run / "classifiers" / f"{self.label}.safetensors"

    def json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def read(cls, path: Path, metadata: Mapping[str, str]) -> Classification:
        """From a file's metadata, which need not be what it should."""
        try:
            found = cls(**json.loads(metadata["classifier"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is no classifier of a run: its metadata lack {error}"
            ) from error
        named = isinstance(found.classes, list) and all(isinstance(c, str) for c in found.classes)
        if not named or found.label != path.stem or not isinstance(found.backbone, dict):
            raise UserError(f"{path} is no classifier of a run for {path.stem!r}, or was renamed")
        return cls(found.label, tuple(found.classes), found.backbone, found.how)


def save_classifier(run: Path, made: Classification, classifier: NoisyClassifier) -> Path:
    """Writes the whole file or none; returns its path."""
    path = made.path(run)
    save_weights(path, classifier.state_dict(), {"classifier": made.json()})
    return path


def load_classifiers(
    run: Path, spec: LatentSpec, schedule: Schedule
) -> dict[str, tuple[Classification, NoisyClassifier]]:
    """The classifiers of a run by label. Raises UserError for a file that is none."""
    found = {}
    for path in sorted((run / "classifiers").glob("*.safetensors")):
        if path.name.startswith("."):  # being written
            continue
        tensors, metadata = load_weights(path)
        made = Classification.read(path, metadata)
        try:
            classifier = made.build(spec, schedule)
            classifier.load_state_dict(tensors)
        except (RegistryError, RuntimeError, TypeError, ValueError) as error:
            problem = str(error).strip().split("\n")
            raise UserError(
                f"{path} does not fit this run: {' '.join(problem[:2])}. Remove it, and train it "
                f"again with stage=classifier classifier.label={made.label}"
            ) from error
        found[made.label] = made, classifier
    return found
