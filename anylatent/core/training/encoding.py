"""The training data as latents: every posterior, and the condition beside it, computed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader

from anylatent.core.modality import move
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.progress import track
from anylatent.core.training.latent_store import Entry, LatentCache, cached_latents
from anylatent.core.training.step_sampler import by_length

if TYPE_CHECKING:
    from anylatent.core.training.stages.base import Training


def latents(training: Training) -> LatentCache:
    """The training data's posteriors and conditions; fits a normaliser that is to be fitted, and
    did not come with the latents."""
    cache, system = posteriors(training), training.system
    if system.normaliser.fits and not training.done.normalised:
        system.normaliser.fit(posterior for posterior, _ in cache.batches(256))
    return cache


def posteriors(training: Training) -> LatentCache:
    """The training data's posteriors and conditions, computed once."""
    system, model = training.system, training.config.model
    made_by = {
        "data": training.data.fingerprint,
        "modality": model.modality,
        "autoencoder": model.autoencoder,
        "conditioner": [model.conditioner, training.data.facts],
    }
    weights = {k: v for k, v in system.trained().items() if k.startswith("autoencoder.")}
    with _first_process_first():
        spec, order = system.autoencoder.spec, by_length(training.data.train())
        key = digest(made_by, weights)
        return cached_latents(spec, key, lambda: encode(training), order)


@torch.no_grad()
def encode(training: Training) -> Iterable[Entry]:
    """Posteriors and conditions of the training data, batch by batch, with a progress bar.

    Data of variable length go from short to long, so that hardly anything is padding.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    system, dataset = training.system.eval().to(device), training.data.train()
    order = by_length(dataset)
    indices = torch.arange(len(dataset)) if order is None else order  # type: ignore[arg-type]
    batches = [batch.tolist() for batch in torch.split(indices, 64)]
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=system.modality.collate)
    for batch in track(loader, "encoding", len(loader)):
        moved = move(batch, device)
        yield system.autoencoder.encode(moved), system.condition(system.columns(moved))
    system.cpu()


@contextmanager
def _first_process_first() -> Iterator[None]:
    """Of several processes, the first runs the block before the others, which find its files."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    if several and torch.distributed.get_rank() > 0:
        torch.distributed.barrier()
    yield
    if several and torch.distributed.get_rank() == 0:
        torch.distributed.barrier()
