"""Classifiers of noisy latents, trained after a diffusion model, as files of its run.

A run keeps one for a label in `classifiers/<label>.safetensors`: averaged weights, and as metadata
in JSON what they were built from. Loading executes nothing: a file can name registered backbones
only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anylatent.core.denoisers import NoisyClassifier
from anylatent.core.latents import ConditionSpec, LatentSpec
from anylatent.core.process import Schedule
from anylatent.core.registry import RegistryError, build
from anylatent.core.runs.system import System
from anylatent.core.support.files import (
    UserError,
    check_finite,
    file_name,
    load_weights,
    save_weights,
)


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
        return f"classifier_{file_name(self.label)}"

    def path(self, run: Path) -> Path:
        """Where a run keeps it."""
        return run / "classifiers" / f"{file_name(self.label)}.safetensors"

    def save(self, run: Path, classifier: NoisyClassifier) -> Path:
        """Writes the whole file or none; returns its path."""
        path = self.path(run)
        save_weights(path, classifier.state_dict(), {"classifier": self.json()})
        return path

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
        fits = named and file_name(str(found.label)) == path.stem
        if not fits or not isinstance(found.backbone, dict):
            raise UserError(f"{path} is no classifier of a run for {path.stem!r}, or was renamed")
        return cls(found.label, tuple(found.classes), found.backbone, found.how)


def load_classifiers(
    run: Path, system: System
) -> dict[str, tuple[Classification, NoisyClassifier]]:
    """The classifiers of a run by label. Raises UserError for a file that is none."""
    found = {}
    for path in sorted((run / "classifiers").glob("*.safetensors")):
        if path.name.startswith("."):  # being written
            continue
        tensors, metadata = load_weights(path)
        check_finite(path, tensors)
        made = Classification.read(path, metadata)
        try:
            classifier = made.build(system.autoencoder.spec, system.schedule)
            classifier.load_state_dict(tensors)
        except (RegistryError, RuntimeError, TypeError, ValueError) as error:
            problem = str(error).strip().split("\n")
            raise UserError(
                f"{path} does not fit this run: {' '.join(problem[:2])}. Remove it, and train it "
                f"again with stage=classifier classifier.label={made.label}"
            ) from error
        found[made.label] = made, classifier
    return found
