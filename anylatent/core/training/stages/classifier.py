"""Training of a classifier of noisy latents, beside a finished diffusion model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.utils.data import Dataset

from anylatent.core.denoisers import NoisyClassifier
from anylatent.core.latents import Latent, Noise, Posterior, Stream, combine
from anylatent.core.modality import Data, move
from anylatent.core.process import as_time
from anylatent.core.registry import register
from anylatent.core.runs import Classification, System
from anylatent.core.support.files import UserError, load_weights, save_text
from anylatent.core.support.progress import track
from anylatent.core.training.encoding import posteriors
from anylatent.core.training.latent_store import LatentCache
from anylatent.core.training.settings import StageSettings, TrainConfig
from anylatent.core.training.stages.base import Descend, Stage, Terms, Training

LEVELS = (8.0, 4.0, 2.0, 0.0, -2.0, -4.0, -6.0)
"""Log-SNRs at which held-out accuracy is told."""

Labelled = tuple[Posterior, Tensor]


def classification(config: TrainConfig, data: Data) -> Classification:
    """What `classifier.label` and `classifier.backbone` ask for; settings of the backbone that are
    not given, or the whole of it, are the run's own."""
    label, node = config.classifier.label, dict(config.classifier.backbone or {})
    columns = ", ".join(data.classes) or "none"
    if label is None or label not in data.classes:
        got = "is not set" if label is None else f"is {label}"
        raise UserError(f"classifier.label {got}; the class columns of the data are {columns}")
    if len(data.classes[label]) < 2:
        raise UserError(f"all samples are of one {label}; the class columns are {columns}")
    backbone = node if "name" in node else {**config.model.backbone, **node}
    settings = {k: v for k, v in config.training["classifier"].items() if k != "workers"}
    how = {"training": settings, "seed": config.seed}
    return Classification(label, tuple(data.classes[label]), backbone, how)


def is_there(made: Classification, run: Path) -> bool:
    """Whether this very classifier is there; one of other settings is an error."""
    path = made.path(run)
    if not path.exists():
        return False
    if Classification.read(path, load_weights(path)[1]).json() == made.json():
        return True
    raise UserError(
        f"{path} was trained with other settings: repeat them, or remove it to train another"
    )


class LabelledLatents(Dataset[Labelled]):
    """Cached posteriors with the labels of their samples, indexed by lists of indices."""

    def __init__(self, cache: LatentCache, labels: Tensor) -> None:
        if labels.shape != (len(cache),):
            raise ValueError(f"labels of shape {tuple(labels.shape)} for {len(cache)} latents")
        self.cache, self.labels, self.lengths = cache, labels, cache.lengths

    def __len__(self) -> int:
        return len(self.cache)

    def __getitems__(self, indices: list[int]) -> Labelled:
        return self.cache.__getitems__(indices)[0], self.labels[torch.as_tensor(indices)]

    def __getitem__(self, index: int) -> Labelled:
        return self.__getitems__([index])


def labels_of(dataset: Any, label: str) -> Tensor:
    """The labels of all items, (N,) long, with progress."""
    places = track(range(len(dataset)), f"reading {label}", len(dataset))
    return torch.tensor([int(dataset[i][label]) for i in places])


@dataclass(frozen=True)
class ClassifierSettings(StageSettings):
    """See `StageSettings`."""

    steps: int = 3000
    batch: int = 128
    decay: float = 0.5


@register("stage", "classifier")
class ClassifierStage(Stage):
    """-log p(label | x_t) on latents of the run's own autoencoder, noised as in its training."""

    name, stream = "classifier", Stream.CLASSIFIER
    further = True
    settings_type = ClassifierSettings

    def __init__(self, training: Training, settings: StageSettings) -> None:
        super().__init__(training, settings)
        self.made = made = classification(training.config, training.data)
        self.label, self.made_by = made.stage, made.json()
        generator = self.system.generator
        if len(generator.members) > 1:
            raise UserError(
                "stage=classifier: this run's generator makes its latents one after the other, in "
                f"the stages {', '.join(generator.members)}, and never has all of them with noise "
                "at a time, which a classifier would tell apart: train it under the condition, and "
                "steer by guidance=classifier_free"
            )
        if generator.times is None:
            raise UserError("this run's generator knows no noisy latents that could be classified")
        self.there = is_there(made, training.directory.path)
        self.classifier = made.build(self.system.autoencoder.spec, self.system.schedule)
        self.system.add_classifier(made.label, made.classes, self.classifier)

    def networks(self) -> dict[str, nn.Module]:
        return {} if self.there else {"classifier": self.classifier}

    def dataset(self) -> LabelledLatents:
        labels = labels_of(self.training.data.train(), self.made.label)
        return LabelledLatents(posteriors(self.training), labels)

    def step(self, batch: Labelled, noise: Noise, number: int, descend: Descend) -> Terms:
        posterior, labels = batch
        x0 = self.system.normaliser.encode(posterior.sample(noise))
        log_p = self._log_p(x0, noise)
        loss = nll_loss(log_p, labels)
        right = (log_p.argmax(1) == labels).float()
        descend("all", loss)
        return {"loss": loss, "accuracy": right}

    def _log_p(self, x0: Latent, noise: Noise) -> Tensor:
        """Of each class, (B, classes), of latents with the noise of times that are drawn."""
        times, schedule = self.system.generator.times, self.classifier.schedule
        assert times is not None  # or there would be no such stage
        t = times.sample(noise, schedule).to(x0.device, non_blocking=True)
        found: Tensor = self.classifier(noisy(x0, self.classifier, t, noise), t)
        return found

    def figures(self) -> dict[str, float]:
        training = self.training
        dataset, seed = training.data.held_out(), training.config.seed
        found = accuracy(self.system, self.made, dataset, seed, 256)
        each = {f"accuracy_at_{level:g}": value for level, value in found.items()}
        return {**each, "held_out_loss": self._held_out_loss(dataset)}

    def _held_out_loss(self, dataset: Any) -> float:
        """Of items all over the held-out part, under noise that is the same at every step."""
        items = [dataset[i] for i in _spread(dataset, 256)]
        labels = torch.tensor([int(item[self.made.label]) for item in items])
        noise = Noise.of((self.training.config.seed, Stream.HELD_OUT), len(items))
        batch = move(self.system.modality.collate(items), self.system.device)
        x0 = self.system.latents(batch, noise)
        return float(nll_loss(self._log_p(x0, noise), labels.to(self.system.device)))

    def finish(self) -> None:
        """Keeps it in the run, and prints its held-out accuracy by noise level."""
        if not self.there:
            report(self.training, self.made)
            self.made.save(self.training.directory.path, self.classifier)


def noisy(x0: Latent, classifier: NoisyClassifier, t: Tensor, noise: Noise) -> Latent:
    """x_t of the classifier's schedule."""
    alpha, sigma = classifier.schedule.coefficients(t)
    return combine((alpha, x0), (sigma, noise.like(x0)))


# ---- accuracy ---------------------------------------------------------------------------------
@torch.no_grad()
def accuracy(
    system: System, made: Classification, dataset: Any, seed: int, most: int = 1024
) -> dict[float, float]:
    """The share of samples that are classified rightly, by log-SNR, under the same noise always."""
    classifier, places = system.classifiers[made.label], _spread(dataset, most)
    lowest = float(classifier.schedule.log_snr(1.0))
    right = {level: 0 for level in LEVELS if level > lowest}
    for start in range(0, len(places), 64):
        items = [dataset[i] for i in places[start : start + 64]]
        labels = torch.tensor([int(item[made.label]) for item in items], device=system.device)
        noise = Noise.of((seed, Stream.ACCURACY, start), len(items))
        batch = move(system.modality.collate(items), system.device)
        x0 = system.latents(batch, noise)
        for level in right:
            t = classifier.schedule.time(as_time(level)).expand(len(items)).to(system.device)
            guess = classifier(noisy(x0, classifier, t, noise), t).argmax(1)
            right[level] += int((guess == labels).sum())
    return {level: number / len(places) for level, number in right.items()}


def _spread(dataset: Any, most: int) -> list[int]:
    """Places all over a data set, which may be sorted by class."""
    count = min(most, len(dataset))
    return [i * len(dataset) // count for i in range(count)]


def commonest(dataset: Any, label: str, most: int = 1024) -> float:
    """The accuracy of a guess that is always the same."""
    labels = [int(dataset[i][label]) for i in _spread(dataset, most)]
    return max(labels.count(value) for value in set(labels)) / len(labels)


def report(training: Training, made: Classification) -> None:
    """Prints the held-out accuracy by noise level, and writes it to the run's logs."""
    dataset = training.data.held_out()
    found = accuracy(training.system, made, dataset, training.config.seed)
    rows = [f"{level:g},{value:.6g}" for level, value in found.items()]
    path = training.directory.path / "logs" / f"{made.stage}_accuracy.csv"
    save_text(path, "\n".join(["log_snr,accuracy", *rows]) + "\n")
    print(table(made, found, commonest(dataset, made.label)))


def table(made: Classification, found: Mapping[float, float], chance: float) -> str:
    """Accuracies as lines of Markdown."""
    rows: Sequence[Sequence[str]] = [
        ["log-SNR", *(f"{level:g}" for level in found)],
        ["---"] * (len(found) + 1),
        ["accuracy", *(f"{value:.3f}" for value in found.values())],
    ]
    lines = ["| " + " | ".join(f"{cell:<8}" for cell in row) + " |" for row in rows]
    title = f"{made.label} of held-out samples by noise level (the commonest class: {chance:.3f})"
    return "\n".join([title, "", *lines])
