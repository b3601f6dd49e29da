"""Distances of feature vectors: closed forms and identities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anylatent.modalities.shared.distances import (
    frechet,
    kernel_distance,
    nearer,
    nearest,
    precision_recall,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(count: int, mean: Tensor, root: Tensor, seed: int = 0) -> Tensor:
    """Vectors whose sample mean and covariance, root · rootᵀ, are exact."""
    x = normal(count, len(mean), seed=seed)
    x = x - x.mean(0)
    white = torch.linalg.qr(x).Q * math.sqrt(count - 1)
    return white @ root.T + mean


def test_frechet_in_closed_form() -> None:
    """N(0, I) and N((1, 0), diag(4, 1)): 1 + tr(I) + tr(diag(4, 1)) - 2 tr(diag(2, 1)) = 2."""
    a = with_moments(50, torch.zeros(2).double(), torch.eye(2).double())
    b = with_moments(
        80, torch.tensor([1.0, 0.0]).double(), torch.diag(torch.tensor([2.0, 1.0])).double(), 1
    )
    assert frechet(a, b) == pytest.approx(2, abs=1e-9)
    assert frechet(b, a) == pytest.approx(2, abs=1e-9)


@pytest.mark.parametrize(("n", "m", "dimension"), [(40, 60, 5), (6, 9, 12), (6, 40, 12)])
def test_frechet_against_the_matrix_square_root(n: int, m: int, dimension: int) -> None:
    """tr (Σ_a Σ_b)^½ by eigenvalues of Σ_a^½ Σ_b Σ_a^½, more and fewer vectors than dimensions."""
    a = normal(n, dimension) @ normal(dimension, dimension, seed=5) + 1
    b = normal(m, dimension, seed=1) @ normal(dimension, dimension, seed=6)
    values, vectors = torch.linalg.eigh(torch.cov(a.T))
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ torch.cov(b.T) @ root).clamp(min=0).sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + torch.cov(a.T).trace()
    expected = expected + torch.cov(b.T).trace() - 2 * cross
    assert frechet(a, b) == pytest.approx(float(expected), rel=1e-5)


def test_frechet_identities() -> None:
    a, b = normal(30, 8), normal(40, 8, seed=1)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + 3) == pytest.approx(8 * 9, rel=1e-9)
    turn = torch.linalg.qr(normal(8, 8, seed=2)).Q
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), rel=1e-9)
    assert frechet(normal(800, 8), normal(800, 8, seed=1)) < frechet(a, b)  # the bias


def test_kernel_distance_in_closed_form() -> None:
    """Point masses at 1 and 0 in one dimension: k(1, 1) + k(0, 0) - 2 k(1, 0) = 8 + 1 - 2."""
    assert kernel_distance(torch.ones(5, 1), torch.zeros(7, 1)) == pytest.approx(7)


def test_kernel_distance_is_unbiased() -> None:
    """Of one law it averages to zero; with the diagonal in, by 9.75 (1/20 + 1/30) = .81."""
    found = torch.tensor(
        [kernel_distance(normal(20, 4, seed=i), normal(30, 4, seed=1000 + i)) for i in range(300)]
    )
    assert abs(float(found.mean())) < 3 * float(found.std()) / math.sqrt(300)
    assert kernel_distance(normal(20, 4), normal(30, 4, seed=1) + 1) > 1


def test_precision_and_recall() -> None:
    a = normal(60, 3)
    assert precision_recall(a, a) == (1, 1)
    assert precision_recall(a, a + 100) == (0, 0)
    two = torch.cat([a, a + 100])
    assert precision_recall(a, two) == (1, 0.5)  # every sample is good, half of them are missing
    assert precision_recall(two, a) == (0.5, 1)


def test_precision_and_recall_by_hand() -> None:
    """Radii to the third neighbour on a line 0 1 2 3: 3 2 2 3, so the manifold is [-3, 6]."""
    line = torch.arange(4.0)[:, None]
    samples = torch.tensor([[-3.5], [-3.0], [6.0], [6.5]])
    precision, recall = precision_recall(samples, line)
    assert (precision, recall) == (0.5, 1.0)


def test_nearest_and_nearer() -> None:
    references = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    found = nearest(torch.tensor([[3.0, 3.0], [0.0, 0.0], [-1.0, 0.0]]), references)
    assert found.distance.tolist() == [1, 0, 1] and found.row.tolist() == [1, 0, 0]
    assert nearer(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])) == (1 + 1 + 0.5 + 1) / 4
    assert nearer(torch.tensor([0.0]), torch.tensor([1.0])) == 1


def test_too_few_vectors() -> None:
    with pytest.raises(ValueError, match="at least 2 vectors"):
        frechet(normal(1, 3), normal(5, 3))
    with pytest.raises(ValueError, match="at least 4 vectors"):
        precision_recall(normal(3, 3), normal(5, 3))
    with pytest.raises(ValueError, match=r"\(5, 3\), \(5, 4\)"):
        kernel_distance(normal(5, 3), normal(5, 4))
