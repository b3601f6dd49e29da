"""The perceptual distance: what a distance must do, what it should find alike, its gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.shared.perceptual import Perceptual, _Blur, _unit
from anylatent.modalities.shared.restoration import blur


@pytest.fixture(scope="module", params=["vgg", "alex"])
def perceptual(request: pytest.FixtureRequest) -> Perceptual:
    distance = Perceptual(request.param)
    try:
        distance(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    except MissingPackage as error:
        pytest.skip(str(error))
    return distance


def pictures(count: int = 4, size: int = 32) -> Tensor:
    """Smooth random pictures with an edge, in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    images = blur(torch.randn(count, 3, size, size, generator=generator), 2.0) * 4
    images[:, :, size // 4 : size // 2, size // 4 : -size // 4] = 0.9
    return images.clamp(-1, 1)


def test_blur_pooling_in_closed_form() -> None:
    layer = _Blur(2)
    flat = torch.full((1, 2, 8, 8), 3.0)
    assert layer(flat).shape == (1, 2, 5, 5) and torch.allclose(layer(flat), torch.tensor(3.0))
    impulse = torch.zeros(1, 2, 8, 8)
    impulse[0, 0, 4, 4] = 16.0
    found = layer(impulse)
    assert torch.equal(found[0, 0, 2:4, 2:4], torch.ones(2, 2))  # each at a corner: 16 / 16
    assert float(found[0, 0].sum()) == pytest.approx(4.0) and float(found[0, 1].sum()) == 0


def test_unit_length_with_a_finite_gradient_at_zero() -> None:
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    _unit(x).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
    y = torch.randn(1, 4, 2, 2)
    assert torch.allclose(_unit(y).norm(dim=1), torch.ones(1, 2, 2))


def test_distance_of_equals_is_zero_and_symmetric(perceptual: Perceptual) -> None:
    a = pictures()
    b = (a + 0.2 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    assert torch.equal(perceptual(a, a), torch.zeros(4))
    assert torch.allclose(perceptual(a, b), perceptual(b, a), rtol=1e-5)
    assert bool((perceptual(a, b) > 0).all())


def test_distance_grows_with_damage(perceptual: Perceptual) -> None:
    a = pictures()
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    found = [perceptual(a, a + scale * noise).mean() for scale in (0.02, 0.1, 0.4)]
    assert found[0] < found[1] < found[2]
    found = [perceptual(a, blur(a, sigma)).mean() for sigma in (0.5, 1.0, 2.0)]
    assert found[0] < found[1] < found[2]


def test_a_shift_of_one_pixel_matters_less_than_its_mse_says(perceptual: Perceptual) -> None:
    """Against noise of the same mean squared error: that is what the weights are tuned for."""
    a = pictures(size=64)
    shifted = a.roll(1, dims=-1)
    mse = (a - shifted).square().mean((1, 2, 3), keepdim=True)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    assert bool((perceptual(a, shifted) < 0.5 * perceptual(a, a + mse.sqrt() * noise)).all())


def test_batch_independence_and_grey_pictures(perceptual: Perceptual) -> None:
    a = pictures()
    b = blur(a, 1.0)
    together = perceptual(a, b)
    alone = torch.cat([perceptual(a[i : i + 1], b[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, rtol=1e-4)
    grey = a[:, :1]
    assert torch.allclose(
        perceptual(grey, blur(grey, 1.0)),
        perceptual(grey.expand(-1, 3, -1, -1), blur(grey, 1.0).expand(-1, 3, -1, -1)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("size", [8, 16, 28, 33])
def test_small_and_odd_sizes(perceptual: Perceptual, size: int) -> None:
    a = pictures(size=size)
    found = perceptual(a, -a)
    assert found.shape == (4,) and bool((found > 1e-3).all())


def test_gradient_flows_to_the_picture_and_lowers_the_distance(perceptual: Perceptual) -> None:
    a = pictures(2)
    x = blur(a, 1.5).requires_grad_()
    before = perceptual(a, x).sum()
    (gradient,) = torch.autograd.grad(before, x)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    step = x - 0.5 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    assert perceptual(a, step).sum() < before
    flat = torch.ones(1, 3, 32, 32, requires_grad=True)
    perceptual(torch.ones(1, 3, 32, 32), flat).sum().backward()
    assert flat.grad is not None and bool(flat.grad.isfinite().all())


def test_directional_derivative_against_differences() -> None:
    try:
        distance = Perceptual("alex")
        a, x = pictures(1), blur(pictures(1), 1.0).requires_grad_()
        (gradient,) = torch.autograd.grad(distance(a, x).sum(), x)
    except MissingPackage as error:
        pytest.skip(str(error))
    direction = gradient / gradient.norm()
    with torch.no_grad():
        change = distance(a, x + 1e-2 * direction) - distance(a, x - 1e-2 * direction)
    assert float(change / 2e-2) == pytest.approx(float(gradient.norm()), rel=0.1)


def test_frozen_stateless_and_copied_for_free(perceptual: Perceptual) -> None:
    before = torch.get_rng_state()
    assert not perceptual.state_dict() and not list(perceptual.parameters())
    assert not list(perceptual.buffers())
    twin = copy.deepcopy(perceptual)
    a = pictures(1)
    assert torch.equal(twin(a, -a), perceptual(a, -a))
    assert torch.equal(before, torch.get_rng_state())


def test_autocast_is_close(perceptual: Perceptual) -> None:
    a = pictures()
    b = blur(a, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        low = perceptual(a, b)
    assert low.dtype == torch.float32
    assert torch.allclose(low, perceptual(a, b), rtol=0.1)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="no trunk 'resnet', only vgg, alex"):
        Perceptual("resnet")
    with pytest.raises(ValueError, match="one shape"):
        Perceptual("alex")(torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match="one shape"):
        Perceptual("alex")(torch.zeros(1, 2, 32, 32), torch.zeros(1, 2, 32, 32))
