"""The norm of queries and keys is torch's, whose backward pass it writes out."""

import pytest
import torch
from torch import nn

from anylatent.core.nn.layers import RMSNorm


def both(size, dtype):
    torch.manual_seed(0)
    own, other = RMSNorm(size).to(dtype), nn.RMSNorm(size).to(dtype)
    nn.init.normal_(own.weight)
    other.load_state_dict(own.state_dict())
    return own, other


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 8), (2, 3, 5, 8), (1, 8), (2, 0, 8), (8,)])
def test_it_is_torch_s(shape, dtype):
    own, other = both(8, dtype)
    x, found = torch.randn(shape, dtype=dtype), []
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    for norm in (own, other):
        given = x.clone().requires_grad_()
        made = norm(given)
        (made * torch.linspace(-1, 2, 8, dtype=dtype)).square().sum().backward()
        found.append((made, given.grad, norm.weight.grad))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=10 * tolerance, atol=10 * tolerance)


def test_its_slope_and_the_slope_of_that():
    own, _ = both(4, torch.float64)
    x = torch.randn(2, 3, 4, dtype=torch.float64).transpose(0, 1).requires_grad_()
    call = torch.autograd.gradcheck, torch.autograd.gradgradcheck
    for check in call:
        assert check(
            lambda x, w: torch.func.functional_call(own, {"weight": w}, (x,)), (x, own.weight)
        )


def test_slopes_of_a_batch_at_once_and_by_functions():
    """As the exact divergence of a flow asks for them."""
    own, other = both(4, torch.float32)
    x = torch.randn(3, 4, requires_grad=True)
    many = torch.randn(5, 3, 4)
    a, b = (torch.autograd.grad(n(x), x, many, is_grads_batched=True)[0] for n in (own, other))
    assert torch.allclose(a, b, atol=1e-5)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(
            transform(own)(x[0].detach()), transform(other)(x[0].detach()), atol=1e-5
        )


def test_a_frozen_gain_and_other_kinds_of_numbers():
    own, other = both(8, torch.float32)
    own.requires_grad_(False)
    x = torch.randn(2, 8, requires_grad=True)
    own(x).sum().backward()
    assert x.grad is not None and own.weight.grad is None
    low = 1e-3 * torch.randn(2, 8).bfloat16()
    assert torch.equal(own.bfloat16()(low), other.bfloat16()(low))


def test_zeros_stay_zeros():
    own, _ = both(4, torch.float32)
    x = torch.zeros(2, 4, requires_grad=True)
    own(x).sum().backward()
    assert bool(x.grad.isfinite().all()) and not own(x).any()
