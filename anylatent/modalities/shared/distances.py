"""Distances between two sets of feature vectors, in closed form and in float64.

All of them depend on the number of vectors as well as on their laws, except for the kernel
distance, which is unbiased: compare figures of equal counts only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def frechet(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance (1706.08500) of the Gaussians with the moments of a (N, D) and b (M, D).

    |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½). With centred A, B and Σ = AᵀA / (N - 1), the
    eigenvalues of Σ_a Σ_b are the squared singular values of ABᵀ / √((N - 1)(M - 1)), so no matrix
    root is taken, and too few vectors for a full covariance do no harm. Biased upwards, the more
    so the fewer the vectors. Raises ValueError for fewer than two vectors.
    """
    a, b = _pair(a, b, least=2)
    centred_a, centred_b = a - a.mean(0), b - b.mean(0)
    scale_a, scale_b = (len(a) - 1) ** 0.5, (len(b) - 1) ** 0.5
    root_a, root_b = _triangle(centred_a / scale_a), _triangle(centred_b / scale_b)
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    spread = (root_a**2).sum() + (root_b**2).sum() - 2 * overlap
    return float((a.mean(0) - b.mean(0)).square().sum() + spread)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """The unbiased squared MMD (1801.01401) with the kernel (x·y / D + 1)³; may be below zero."""
    a, b = _pair(a, b, least=2)
    within_a, within_b, between = _kernel(a, a), _kernel(b, b), _kernel(a, b)
    mean_a = (within_a.sum() - within_a.trace()) / (len(a) * (len(a) - 1))
    mean_b = (within_b.sum() - within_b.trace()) / (len(b) * (len(b) - 1))
    return float(mean_a + mean_b - 2 * between.mean())


def precision_recall(samples: Tensor, real: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall (1904.06991).

    A set's manifold is the union of the balls around its vectors that reach to their k-th nearest
    neighbour. Precision: the fraction of samples on the manifold of the real ones. Recall: the
    fraction of real ones on the manifold of the samples. Raises ValueError for too few vectors.
    """
    samples, real = _pair(samples, real, least=neighbours + 1)
    between = _distances(samples, real)
    precision = (between <= _radii(real, neighbours)[None, :]).any(1)
    recall = (between <= _radii(samples, neighbours)[:, None]).any(0)
    return float(precision.double().mean()), float(recall.double().mean())


class Nearest(NamedTuple):
    """For each of N vectors the distance to the nearest reference, and which one that is, (N,)."""

    distance: Tensor
    row: Tensor


def nearest(a: Tensor, references: Tensor) -> Nearest:
    """The Euclidean nearest reference of each vector."""
    a, references = _pair(a, references, least=1)
    rows = torch.cat([torch.cdist(part, references).argmin(1) for part in torch.split(a, 512)])
    return Nearest((a - references[rows]).norm(dim=1), rows)


def nearer(a: Tensor, b: Tensor) -> float:
    """The probability that an entry of a (N,) is below one of b (M,), ties counting half."""
    below = (a[:, None] < b[None, :]).double() + 0.5 * (a[:, None] == b[None, :]).double()
    return float(below.mean())


def _pair(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"two sets of vectors must be (N, D) and (M, D), got {tuple(a.shape)}, {tuple(b.shape)}"
        )
    if min(len(a), len(b)) < least:
        raise ValueError(
            f"at least {least} vectors are needed on either side, got {len(a)} and {len(b)}"
        )
    return a.double(), b.double()


def _triangle(x: Tensor) -> Tensor:
    """A matrix with the same xᵀx and at most as many rows as columns."""
    if len(x) <= x.shape[1]:
        return x
    triangle: Tensor = torch.linalg.qr(x, mode="r").R
    return triangle


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """By differences rather than products, so that equal vectors are at distance zero exactly."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """The distance to the k-th nearest other vector, (N,)."""
    return _distances(x, x).kthvalue(neighbours + 1, dim=1).values
