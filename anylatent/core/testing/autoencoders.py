"""The contract of autoencoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.latents import Noise
from anylatent.core.modality import Batch, Outputs
from anylatent.core.testing.examples import alone, distance, in_subspace

TOLERANCE = 1e-5


def rows(batch: Batch, index: list[int]) -> dict[str, Any]:
    """Some samples of a batch."""
    return {
        key: column[index] if isinstance(column, Tensor) else [column[i] for i in index]
        for key, column in batch.items()
    }


@runtime_checkable
class _Dense(Protocol):
    """Outputs that are one tensor, (B, ...)."""

    tensor: Tensor


def check_autoencoder(autoencoder: Autoencoder, batch: Batch) -> None:
    """Posteriors in the subspace, one sample whatever its neighbours, terms that can be trained.

    `batch` has at least two samples, as the modality's `collate` makes them.
    """
    name = type(autoencoder).__name__
    column = next(iter(batch.values()))
    size = len(column)
    autoencoder.eval()
    with torch.no_grad():
        posterior = autoencoder.encode(batch)
        assert posterior.mean.spec == autoencoder.spec, f"{name}: {posterior.mean.spec}"
        assert posterior.mean.batch == size, f"{name}: {posterior.mean.batch} latents for {size}"
        assert in_subspace(posterior.mean), f"{name}: the encoder leaves the subspace"
        assert in_subspace(posterior.sample(Noise.of(0, size))), f"{name}: samples leave it"
        if posterior.log_std is not None:
            kl = posterior.kl()
            assert kl.shape == (size,) and bool((kl >= 0).all()), f"{name}: KL {kl}"
        output = autoencoder.decode(posterior.mean)
        assert isinstance(output, Outputs), f"{name}: {type(output).__name__} are no Outputs"
        assert len(output) == size, f"{name}: {len(output)} outputs for {size} latents"
        for i in range(size):
            lonely = autoencoder.encode(rows(batch, [i])).mean
            gap = distance(alone(lonely, 0), alone(posterior.mean, i))
            assert gap <= 1e-4, f"{name}: latent {i} depends on its neighbours ({gap:.3g})"
            single = autoencoder.decode(lonely)
            assert len(single) == 1, f"{name}: {len(single)} outputs for one latent"
            if isinstance(single, _Dense) and isinstance(output, _Dense):
                gap = float((single.tensor[0] - output.tensor[i]).abs().max())
                assert gap <= 1e-3, f"{name}: output {i} depends on its neighbours ({gap:.3g})"
    _check_terms(autoencoder, batch, size, name)


def _check_terms(autoencoder: Autoencoder, batch: Batch, size: int, name: str) -> None:
    autoencoder.equip()
    autoencoder.train()
    critic = autoencoder.adversary
    apart = set() if critic is None else set(critic.parameters())
    for step in (0, 10**9):
        autoencoder.zero_grad()
        terms, output = autoencoder.loss(batch, Noise.of(0, size), step)
        _check_named(terms, size, f"{name}, step {step}")
        if not any(p.requires_grad for p in autoencoder.parameters()):
            return  # nothing to train
        losses = [term.mean() for term in terms.values()]
        if not autoencoder.alone:  # the generator's loss reaches it through the latents
            z = autoencoder.encode(batch).sample(Noise.of(1, size))
            losses.append(z.dot(Noise.of(2, size).like(z)).mean())
        assert losses, f"{name}: it has parameters to learn, but neither terms nor alone = False"
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        own = {k: p for k, p in autoencoder.named_parameters() if p not in apart}
        _check_gradients(own, f"{name}, step {step}")
        judged = autoencoder.adversary_loss(batch, output, step)
        _check_named(judged, size, f"{name}'s adversary, step {step}")
    if autoencoder.adversary is not None:
        assert judged, f"{name}: the adversary never starts to learn"
        autoencoder.zero_grad()
        torch.stack([term.mean() for term in judged.values()]).sum().backward()  # type: ignore[no-untyped-call]
        _check_gradients(dict(autoencoder.adversary.named_parameters()), f"{name}'s adversary")
        leaked = [k for k, p in own.items() if p.grad is not None and bool(p.grad.any())]
        assert not leaked, f"{name}: the adversary's loss moves {leaked}"


def _check_named(terms: Mapping[str, Tensor], size: int, where: str) -> None:
    for key, term in terms.items():
        assert term.shape in ((), (size,)), f"{where}: term '{key}' has shape {term.shape}"
        assert bool(term.isfinite().all()), f"{where}: term '{key}' is {term}"


def _check_gradients(parameters: Mapping[str, nn.Parameter], where: str) -> None:
    learned = {key: p for key, p in parameters.items() if p.requires_grad}
    silent = [key for key, p in learned.items() if p.grad is None]
    assert not silent, f"{where}: no gradient reaches {silent}"
    broken = [k for k, p in learned.items() if p.grad is not None and not p.grad.isfinite().all()]
    assert not broken, f"{where}: infinite gradients of {broken}"
