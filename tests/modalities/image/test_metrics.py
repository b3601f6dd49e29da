"""Tables of figures about pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from anylatent.core.modality.batch import Item
from anylatent.core.modality.data import Data
from anylatent.core.modality.metrics import Metrics
from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.image.data import Mnist, OpenMoji
from anylatent.modalities.image.metrics import (
    ClassAccuracy,
    Frechet,
    Memorisation,
    Restoration,
    classifier,
    references,
)
from anylatent.modalities.image.pictures import Pictures
from anylatent.modalities.shared.image_features import features


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


def table(data: Data, limit: int = 5000) -> Metrics:
    """The metrics of pictures."""
    kinds = (Frechet, Memorisation, ClassAccuracy)
    return Metrics([*(kind(data, limit) for kind in kinds), Restoration()])


def data_of(metrics: Metrics) -> Data:
    return metrics.metrics[0].references.data


@pytest.fixture(scope="module")
def metrics(home: Path) -> Metrics:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        patch.setattr(classifier, "STEPS", 30)
        try:
            found = table(Few())
            found.baselines()
        except MissingPackage as error:
            pytest.skip(str(error))
    return found


def images_of(dataset: Dataset[Item]) -> tuple[Tensor, list[int]]:
    items = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
    return torch.stack([item["image"] for item in items]), [item["digit"] for item in items]


def test_rows_of_real_and_worse_pictures(metrics: Metrics) -> None:
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


def test_samples_that_are_held_out_pictures_are_at_no_distance(metrics: Metrics) -> None:
    images, digits = images_of(data_of(metrics).held_out())
    row = metrics.samples(Pictures(images), {"digit": digits})
    assert row["frechet_efficientnet"] == pytest.approx(0, abs=1e-6)
    assert (row["precision"], row["recall"]) == (1, 1)
    baseline = metrics.baselines()["held-out"]
    assert row["accuracy"] == baseline["accuracy"]
    assert row["nearest_training"] == pytest.approx(baseline["nearest_training"])


def test_asked_classes_count(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    images, digits = images_of(data_of(metrics).held_out())
    known = features(images)
    monkeypatch.setattr(references, "features", lambda images: known)
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


def test_more_samples_do_not_make_the_distance_smaller(metrics: Metrics) -> None:
    images, _ = images_of(data_of(metrics).train())
    assert metrics.samples(Pictures(images[:40]), {})["pictures"] == 30
    assert metrics.samples(Pictures(images[:10]), {})["pictures"] == 10


def test_copies_are_found(metrics: Metrics) -> None:
    images, _ = images_of(data_of(metrics).train())
    found = metrics.metrics[1].nearest(Pictures(images[5:10] + 0.01))
    assert found.row.tolist() == [5, 6, 7, 8, 9]


def test_the_second_time_comes_from_disk(
    metrics: Metrics, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Tensor:
        raise AssertionError("made again")

    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(references, "features", never)
    monkeypatch.setattr(references, "learn", never)
    assert table(Few()).baselines() == metrics.baselines()
    with pytest.raises(AssertionError, match="made again"):
        table(Few(), limit=20).baselines()


def test_reconstructions_average_the_pictures_own_figures(metrics: Metrics) -> None:
    a = torch.zeros(2, 1, 32, 32)
    b = a + torch.tensor([0.2, 0.02])[:, None, None, None]
    row = metrics.reconstructions(Pictures(a), Pictures(b))
    assert row["psnr"] == pytest.approx(30, abs=1e-4)  # of the mean error it would be 22.97
    assert set(row) == {"psnr", "ssim", "perceptual"}
    same = metrics.reconstructions(Pictures(a), Pictures(a))
    assert (same["psnr"], same["perceptual"]) == (100, 0) and same["ssim"] == pytest.approx(1)


def test_too_few_pictures(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="need 4 pictures .* got .2, 1, 32, 32."):
        metrics.samples(Pictures(torch.zeros(2, 1, 32, 32)), {})
    with pytest.raises(ValueError, match="are of Pictures, got list"):
        metrics.samples([1, 2, 3], {})


@pytest.mark.slow
def test_emoji_table() -> None:
    """The judge knows categories of pictures that it has not seen, and the rows are in order."""
    try:
        rows = table(OpenMoji()).baselines()
    except MissingPackage as error:
        pytest.skip(str(error))
    real, worse = rows["held-out"], rows["blurred"]
    assert real["accuracy"] > 0.66 and real["accuracy_flags"] > 0.9
    assert real["frechet_efficientnet"] < 0.8 * worse["frechet_efficientnet"]
    assert real["kernel_efficientnet"] < 0.01 < worse["kernel_efficientnet"]
