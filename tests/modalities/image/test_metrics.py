"""Figures about pictures: closed forms, identities, and whole tables."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from anylatent.core.modality.batch import Item
from anylatent.core.modality.data import Data
from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.image.data import Mnist, OpenMoji
from anylatent.modalities.image.features import features
from anylatent.modalities.image.metrics import (
    ImageMetrics,
    blur,
    classifier,
    frechet,
    kernel_distance,
    nearer,
    nearest,
    precision_recall,
    psnr,
    ssim,
    suite,
)
from anylatent.modalities.image.pictures import Pictures


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(count: int, mean: Tensor, root: Tensor, seed: int = 0) -> Tensor:
    """Vectors whose sample mean and covariance, root · rootᵀ, are exact."""
    x = normal(count, len(mean), seed=seed)
    x = x - x.mean(0)
    white = torch.linalg.qr(x).Q * math.sqrt(count - 1)
    return white @ root.T + mean


# ---- distances --------------------------------------------------------------------------------
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


# ---- restoration ------------------------------------------------------------------------------
def test_psnr_of_known_errors() -> None:
    a = torch.zeros(3, 1, 8, 8)
    b = a + torch.tensor([0.2, 0.02, 0.0])[:, None, None, None]  # .1, .01 and 0 in [0, 1]
    assert psnr(a, b).tolist() == pytest.approx([20, 40, 100], abs=1e-4)
    noise = 0.1 * normal(1, 3, 256, 256).float()
    assert float(psnr(torch.zeros_like(noise), noise)) == pytest.approx(26.02, abs=0.05)
    assert float(psnr(torch.ones(1, 3, 8, 8), torch.full((1, 3, 8, 8), 7.0))) == 100  # clamped


def test_ssim_of_flat_pictures_in_closed_form() -> None:
    a, b = torch.full((1, 3, 16, 16), 0.0), torch.full((1, 3, 16, 16), 0.6)  # .5 and .8
    expected = (2 * 0.5 * 0.8 + 1e-4) / (0.25 + 0.64 + 1e-4)
    assert float(ssim(a, b)) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_equals_is_one_and_falls_with_damage() -> None:
    a = blur(normal(4, 3, 32, 32).float(), 1.0).clamp(-1, 1)
    assert ssim(a, a).tolist() == pytest.approx([1] * 4, abs=1e-6)
    found = [float(ssim(a, blur(a, sigma)).mean()) for sigma in (0.5, 1.0, 2.0)]
    assert 1 > found[0] > found[1] > found[2]
    assert float(ssim(a, -a).mean()) < 0.1


def test_ssim_against_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is missing")
    a, b = torch.rand(4, 3, 32, 24), torch.rand(4, 3, 32, 24)
    _, whole = image.structural_similarity_index_measure(
        a, b, data_range=1.0, reduction="none", return_full_image=True
    )
    theirs = whole[..., 5:-5, 5:-5].mean((1, 2, 3))  # they reflect the edges, we leave them out
    assert torch.allclose(ssim(2 * a - 1, 2 * b - 1).float(), theirs, atol=1e-5)


@pytest.mark.parametrize("size", [4, 8, 11])
def test_ssim_of_small_pictures(size: int) -> None:
    a = normal(2, 1, size, size).float().clamp(-1, 1)
    assert ssim(a, a).tolist() == pytest.approx([1, 1]) and float(ssim(a, -a).mean()) < 0.1


def test_blur_keeps_flat_pictures_and_has_its_width() -> None:
    assert torch.allclose(blur(torch.full((1, 3, 9, 9), 0.3), 1.5), torch.tensor(0.3))
    impulse = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    impulse[0, 0, 20, 20] = 1
    spread = blur(impulse, 2.0)[0, 0].sum(0)
    x = torch.arange(41, dtype=torch.float64) - 20
    assert float((spread * x**2).sum()) == pytest.approx(4, rel=0.03)


def test_pictures_of_different_shapes() -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))


# ---- whole tables -----------------------------------------------------------------------------
class Few(Data):
    """Every twentieth training digit and half as many held-out ones of three kinds."""

    classes = {"digit": ("0", "1", "2")}
    shape = (1, 32, 32)
    fingerprint = "few digits"

    def __init__(self) -> None:
        data = Mnist()
        self._parts = [
            Subset(part, [i for i in range(0, len(part), step) if part.columns["digit"][i] < 3])
            for part, step in ((data.train(), 20), (data.held_out(), 5))
        ]

    def train(self) -> Dataset[Item]:
        return self._parts[0]

    def held_out(self) -> Dataset[Item]:
        return self._parts[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def metrics(home: Path) -> ImageMetrics:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        patch.setattr(classifier, "STEPS", 30)
        try:
            found = ImageMetrics(Few())
            found.baselines()
        except MissingPackage as error:
            pytest.skip(str(error))
    return found


def images_of(dataset: Dataset[Item]) -> tuple[Tensor, list[int]]:
    items = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
    return torch.stack([item["image"] for item in items]), [item["digit"] for item in items]


def test_rows_of_real_and_worse_pictures(metrics: ImageMetrics) -> None:
    rows = metrics.baselines()
    assert list(rows) == ["held-out", "training", "blurred"]
    real, copied, worse = rows.values()
    assert {row["pictures"] for row in rows.values()} == {30}
    for name in ("frechet_efficientnet", "kernel_efficientnet"):
        assert real[name] == pytest.approx(copied[name]) and real[name] < worse[name]
    assert (real["precision"], real["recall"]) == (copied["recall"], copied["precision"])
    assert worse["recall"] < real["recall"]
    assert real["nearer_than_held_out"] == 0.5 and real["near_copies"] == pytest.approx(
        0.05, abs=0.03
    )
    assert copied["nearest_training"] == 0 and copied["near_copies"] == 1
    assert real["accuracy"] > 0.85 and "accuracy" not in copied
    each = [real[f"accuracy_{name}"] for name in ("0", "1", "2")]
    assert real["accuracy_macro"] == pytest.approx(sum(each) / 3)


def test_samples_that_are_held_out_pictures_are_at_no_distance(metrics: ImageMetrics) -> None:
    images, digits = images_of(metrics.data.held_out())
    row = metrics.samples(Pictures(images), {"digit": digits})
    assert row["frechet_efficientnet"] == pytest.approx(0, abs=1e-6)
    assert (row["precision"], row["recall"]) == (1, 1)
    baseline = metrics.baselines()["held-out"]
    assert row["accuracy"] == baseline["accuracy"]
    assert row["nearest_training"] == pytest.approx(baseline["nearest_training"])


def test_asked_classes_count(metrics: ImageMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    images, digits = images_of(metrics.data.held_out())
    known = features(images)
    monkeypatch.setattr(suite, "features", lambda images: known)
    right = metrics.samples(Pictures(images), {"digit": torch.tensor(digits)})["accuracy"]
    by_name = metrics.samples(Pictures(images), {"digit": [str(digit) for digit in digits]})
    assert by_name["accuracy"] == right
    wrong = metrics.samples(Pictures(images), {"digit": [(digit + 1) % 3 for digit in digits]})
    assert wrong["accuracy"] <= 1 - right
    half = [digit if digit == 1 else None for digit in digits]
    assert {
        n for n in metrics.samples(Pictures(images), {"digit": half}) if n.startswith("accuracy")
    } == {
        "accuracy",
        "accuracy_macro",
        "accuracy_1",
    }
    assert "accuracy" not in metrics.samples(Pictures(images), {})
    with pytest.raises(ValueError, match="unknown class 'nine': allowed are 0, 1, 2"):
        metrics.samples(Pictures(images), {"digit": ["nine"] * len(images)})
    with pytest.raises(ValueError, match="column of 1 entries does not fit 30"):
        metrics.samples(Pictures(images), {"digit": [1]})


def test_more_samples_do_not_make_the_distance_smaller(metrics: ImageMetrics) -> None:
    images, _ = images_of(metrics.data.train())
    assert metrics.samples(Pictures(images[:40]), {})["pictures"] == 30
    assert metrics.samples(Pictures(images[:10]), {})["pictures"] == 10


def test_copies_are_found(metrics: ImageMetrics) -> None:
    images, _ = images_of(metrics.data.train())
    found = metrics.nearest(Pictures(images[5:10] + 0.01))
    assert found.row.tolist() == [5, 6, 7, 8, 9]


def test_the_second_time_comes_from_disk(
    metrics: ImageMetrics, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Tensor:
        raise AssertionError("made again")

    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(suite, "features", never)
    monkeypatch.setattr(suite, "learn", never)
    assert ImageMetrics(Few()).baselines() == metrics.baselines()
    with pytest.raises(AssertionError, match="made again"):
        ImageMetrics(Few(), limit=20).baselines()


def test_reconstructions_average_the_pictures_own_figures(metrics: ImageMetrics) -> None:
    a = torch.zeros(2, 1, 32, 32)
    b = a + torch.tensor([0.2, 0.02])[:, None, None, None]
    row = metrics.reconstructions(Pictures(a), Pictures(b))
    assert row["psnr"] == pytest.approx(30, abs=1e-4)  # of the mean error it would be 22.97
    assert set(row) == {"psnr", "ssim", "perceptual"}
    same = metrics.reconstructions(Pictures(a), Pictures(a))
    assert (same["psnr"], same["perceptual"]) == (100, 0) and same["ssim"] == pytest.approx(1)


def test_too_few_pictures(metrics: ImageMetrics) -> None:
    with pytest.raises(ValueError, match="need 4 pictures .* got .2, 1, 32, 32."):
        metrics.samples(Pictures(torch.zeros(2, 1, 32, 32)), {})
    with pytest.raises(ValueError, match="are of Pictures, got list"):
        metrics.samples([1, 2, 3], {})


@pytest.mark.slow
def test_emoji_table() -> None:
    """The judge knows categories of pictures that it has not seen, and the rows are in order."""
    try:
        rows = ImageMetrics(OpenMoji()).baselines()
    except MissingPackage as error:
        pytest.skip(str(error))
    real, worse = rows["held-out"], rows["blurred"]
    assert real["accuracy"] > 0.66 and real["accuracy_flags"] > 0.9
    assert real["frechet_efficientnet"] < 0.8 * worse["frechet_efficientnet"]
    assert real["kernel_efficientnet"] < 0.01 < worse["kernel_efficientnet"]
