"""What a latent space holds: how many bits, in how many dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anylatent.core.latents import Latent, Posterior

POINT = -12.0
"""A log deviation below which a field counts as known exactly; bottlenecks stop at -10."""


def rate(posteriors: Sequence[Posterior]) -> dict[str, float]:
    """The mean KL divergence, in bits, of normalised posteriors from a standard normal.

    In all, and of each field where there are several. Point masses, also single fields of no
    deviation such as codes, have no rate: they are left out.
    """
    spread = [name for name in _fields(posteriors) if not _point(posteriors[0], name)]
    units = [_unit(_take(posterior, spread)) for posterior in posteriors if spread]
    if not units:
        return {}
    totals: dict[str, list[Tensor]] = {"rate_bits": [unit.kl() for unit in units]}
    for name in spread if len(_fields(posteriors)) > 1 else []:
        totals[f"rate_bits_{name}"] = [_take(unit, [name]).kl() for unit in units]
    return {name: float(torch.cat(kl).mean() / math.log(2)) for name, kl in totals.items()}


def _fields(posteriors: Sequence[Posterior]) -> list[str]:
    return list(posteriors[0].mean.parts) if posteriors else []


def _point(posterior: Posterior, name: str) -> bool:
    log_std = posterior.log_std
    return log_std is None or bool((log_std[name] < POINT).all())


def _unit(posterior: Posterior) -> Posterior:
    """With every field at unit deviation, whatever its spec says."""
    stds = {name: field.std for name, field in posterior.mean.spec.fields.items()}
    mean, log_std = posterior.mean, posterior.log_std
    mean = Latent({n: x / stds[n] for n, x in mean.parts.items()}, mean.masks, mean.spec)
    if log_std is not None:
        parts = {name: x - math.log(stds[name]) for name, x in log_std.parts.items()}
        log_std = Latent(parts, log_std.masks, log_std.spec)
    return Posterior(mean, log_std)


def _take(posterior: Posterior, names: Sequence[str]) -> Posterior:
    log_std = posterior.log_std
    return Posterior(posterior.mean.take(names), None if log_std is None else log_std.take(names))


def effective_dimensions(samples: Sequence[Latent]) -> dict[str, float]:
    """The mean number of dimensions, and the participation ratio (Σλ)²/Σλ² of the eigenvalues of
    the covariance: of the whole latent where its size is fixed, else of the numbers that each
    field has per entry."""
    figures = {"latent_dimensions": float(torch.cat([z.dim for z in samples]).mean())}
    if not samples[0].masks:
        flat = [torch.cat([x.flatten(1) for x in z.parts.values()], 1) for z in samples]
        return figures | {"effective_dimensions": participation(torch.cat(flat))}
    for name in samples[0].parts:
        entries = torch.cat([_entries(z, name) for z in samples])
        figures[f"effective_dimensions_{name}"] = participation(entries)
    return figures


def _entries(z: Latent, name: str) -> Tensor:
    """The valid entries of a field, (entries, numbers)."""
    x, mask = z[name], z.masks.get(name)
    return x.flatten(1) if mask is None else x[mask].flatten(1)


def participation(x: Tensor) -> float:
    """(Σλ)²/Σλ² for the covariance of rows x (samples, dimensions)."""
    values = torch.linalg.svdvals(x.double() - x.double().mean(0)) ** 2
    return float(values.sum() ** 2 / (values**2).sum().clamp(min=1e-300))
