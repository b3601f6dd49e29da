"""The training data as latents: every posterior, and the condition beside it, computed once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anylatent.core.latents import Noise, Posterior, Stream
from anylatent.core.modality import Batch, fetch, move
from anylatent.core.support.devices import device_of
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.file_digests import file_digests
from anylatent.core.support.files import UserError
from anylatent.core.training.latent_store import Entry, LatentCache, cached_latents

if TYPE_CHECKING:
    from anylatent.core.training.stages.base import Training


def latents(training: Training, copies: int = 1) -> LatentCache:
    """The training data's posteriors and conditions, see `posteriors`; fits a normaliser that is
    to be fitted, and did not come with the latents."""
    cache, system = posteriors(training, copies), training.system
    if system.normaliser.fits and not training.done.normalised:
        system.normaliser.fit(posterior for posterior, _ in cache.batches(256))
    return cache


def posteriors(training: Training, copies: int = 1) -> LatentCache:
    """The training data's posteriors and conditions, computed once; of each item as it is, or of
    so many augmented copies, first one of each, then the second."""
    system, model = training.system, training.config.model
    made_by: dict[str, object] = {
        "data": training.data.fingerprint,
        "modality": model.modality,
        "autoencoder": model.autoencoder,
        "conditioner": [model.conditioner, training.data.facts],
    }
    if files := system.conditioner.files:
        made_by["files"] = file_digests(Path(os.path.commonpath(files)), files)
    if copies > 1:
        made_by["copies"] = [copies, training.config.seed]
    trained, parts = system.trained(), ("autoencoder.", "conditioner.")
    weights = {k: v for k, v in trained.items() if k.startswith(parts) and k not in system.learned}
    encoder = Encoder(training, copies)
    cache = cached_latents(
        system.autoencoder.spec,
        digest(made_by, weights),
        len(encoder.dataset) * copies,
        encoder,
        encoder.lengths,
        {**made_by, "run": training.config.run},
    )
    system.cpu()
    return cache


def check_copies(training: Training, copies: int) -> None:
    """Raises UserError for augmented copies of items that the modality does not augment."""
    if copies == 1:
        return
    modality, dataset = training.system.modality, training.data.train()
    batch = modality.collate(fetch(dataset, [0]))
    if modality.augment(batch, Noise([0])) is batch:
        raise UserError(
            f"copies={copies} would all be alike: {type(modality).__name__} augments nothing as it "
            "is set; let it, see `anylatent list modality`, or use copies=1"
        )


class Encoder:
    """Encodes entries of a cache by their numbers: number k · N + i is copy k of item i of N."""

    def __init__(self, training: Training, copies: int) -> None:
        self.system, self.seed, self.copies = training.system, training.config.seed, copies
        self.dataset: Any = training.data.train()
        lengths = getattr(self.dataset, "lengths", None)
        self.lengths = None if lengths is None else lengths.repeat(copies)
        self.device = torch.device(device_of())

    @torch.no_grad()
    def __call__(self, entries: list[int]) -> Entry:
        system = self.system.eval().to(self.device)
        items = fetch(self.dataset, [entry % len(self.dataset) for entry in entries])
        batch = move(system.modality.collate(items), self.device)
        if self.copies > 1:
            batch = dict(self._augmented(batch, entries))
        posterior = system.autoencoder.encode(batch)
        self._check(posterior, entries)
        return posterior, system.read(batch)

    def _check(self, posterior: Posterior, entries: list[int]) -> None:
        """Raises UserError where what an item is encoded into is not finite."""
        for latent in filter(None, (posterior.mean, posterior.log_std)):
            for name, x in latent.parts.items():
                wrong = ~x.isfinite().flatten(1).all(1)
                if bool(wrong.any()):
                    item = entries[int(wrong.nonzero()[0])] % len(self.dataset)
                    raise UserError(
                        f"the autoencoder encodes item {item} of the training data into '{name}', "
                        "whose numbers are not finite: look at that item, or train the autoencoder "
                        "again with a smaller learning rate"
                    )

    def _augmented(self, batch: Batch, entries: list[int]) -> Batch:
        """Each entry changed in its own way, whatever else is in the batch."""
        places = [divmod(entry, len(self.dataset)) for entry in entries]
        keys = [(self.seed, Stream.COPIES, copy, item) for copy, item in places]
        return self.system.modality.augment(batch, Noise(keys))
