"""What judges of samples share: a convex fit against its conditions, rates, and random states."""

import math

import pytest
import torch
from torch import nn

from anylatent.modalities.shared import probes


def test_logistic_regression_is_at_the_minimum():
    """∂/∂W = mean (p - y) xᵀ + 2·penalty·W = 0 and mean (p - y) = 0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    labels = torch.arange(60) % 3
    x[:, 0] += labels
    weight, bias = probes.logistic_regression(x, labels, 3, penalty=0.01, iterations=100)
    assert not weight.requires_grad and weight.dtype == torch.float64
    wrong = (x @ weight.T + bias).softmax(1) - nn.functional.one_hot(labels, 3)
    assert float((wrong.T @ x / 60 + 0.02 * weight).abs().max()) < 1e-4
    assert float(wrong.mean(0).abs().max()) < 1e-4
    assert float(((x @ weight.T + bias).argmax(1) == labels).double().mean()) > 0.5
    less, _ = probes.logistic_regression(x, labels, 3, penalty=1.0, iterations=100)
    assert float(less.norm()) < 0.2 * float(weight.norm())


def test_what_is_drawn_is_the_same_and_leaves_no_trace():
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with probes.seeded():
            drawn.append(torch.rand(3))
    assert torch.equal(*drawn) and torch.equal(before, torch.get_rng_state())


def test_a_restored_network_is_frozen_and_leaves_no_trace():
    state = nn.Linear(2, 2).state_dict()
    before = torch.get_rng_state()
    network = probes.restored(lambda: nn.Sequential(nn.Linear(2, 2), nn.Dropout()), prefixed(state))
    assert torch.equal(network[0].weight, state["weight"]) and not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert torch.equal(before, torch.get_rng_state())


def prefixed(state):
    return {f"0.{name}": value for name, value in state.items()}


def test_rates_rise_and_fall_and_gradients_are_clipped():
    """With SGD a step is -rate · gradient / max(1, its norm)."""
    weight = nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=torch.float64))])
    places = []

    def backward(rows):
        places.append(weight[0].detach().clone())
        (weight[0] * torch.tensor([30.0, 40.0])).sum().backward()

    optimizer = torch.optim.SGD(weight.parameters(), lr=0.5)
    probes.learn(weight, [optimizer], probes.batches(10, 2, 200), backward, "it")
    steps = -torch.stack(places).diff(dim=0)
    assert torch.allclose(steps / steps.norm(dim=1)[:, None], torch.tensor([0.6, 0.8]).double())
    for k in (0, 50, 150, 198):
        rate = 0.5 * min(1, (k + 1) / 100) * 0.5 * (1 + math.cos(math.pi * k / 200))
        assert float(steps[k].norm()) == pytest.approx(rate, rel=1e-4)


def test_rows_are_always_the_same_and_each_comes_once_a_pass():
    first, second = (list(probes.batches(12, 3, 8)) for _ in range(2))
    assert first == second and sorted(sum(first[:4], [])) == list(range(12))
    lengths = torch.arange(12) // 3
    for rows in probes.batches(12, 3, 8, lengths):
        assert len({int(lengths[row]) for row in rows}) == 1
