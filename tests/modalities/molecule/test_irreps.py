"""Layers that treat degrees apart, against e3nn's."""

import importlib.util

import pytest
import torch

from anylatent.modalities.molecule import irreps

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("e3nn") is None, reason="e3nn is not installed: anylatent[molecule]"
)


def mul_first(f, sizes):
    """From our layout to e3nn's."""
    return torch.cat([p.mT.flatten(1) for p in irreps.parts(f, sizes)], -1)


def as_irreps(sizes, start=0):
    return "+".join(f"{n}x{i}{'eo'[i % 2]}" for i, n in enumerate(sizes) if i >= start)


@pytest.mark.parametrize("inputs", ((5,), (5, 3), (5, 3, 2)), ids=str)
@pytest.mark.parametrize("degrees", (1, 2, 3))
def test_products_equal_those_of_e3nn(inputs, degrees):
    from e3nn import o3

    ours = irreps.WeightedProduct(inputs, degrees)
    couplings = irreps.Couplings().double()
    outputs = [(inputs[a], c) for c in range(degrees) for a in range(len(inputs))]
    theirs = o3.TensorProduct(
        as_irreps(inputs),
        "1x0e+1x1o+1x2e",
        "+".join(f"{n}x{c}{'eo'[c % 2]}" for n, c in outputs),
        [(a, b, c * len(inputs) + a, "uvu", True) for a, b, c in ours.paths],
        path_normalization="none",
        shared_weights=False,
        internal_weights=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        f = torch.randn(7, sum(n * (2 * i + 1) for i, n in enumerate(inputs)), dtype=torch.float64)
        weights = torch.randn(7, ours.weights, dtype=torch.float64)
        direction = torch.nn.functional.normalize(torch.randn(7, 3, dtype=torch.float64), dim=-1)
    assert theirs.weight_numel == ours.weights
    reference = theirs.double()(
        mul_first(f, inputs),
        o3.spherical_harmonics([0, 1, 2], direction, True, "component"),
        weights,
    )
    got = mul_first(ours(f, couplings(direction), weights), ours.sizes)
    assert got.shape == reference.shape and reference.abs().max() > 0.5
    assert (got - reference).abs().max() < 1e-6  # e3nn's constants stay rounded to float32


def test_gates_equal_those_of_e3nn_up_to_its_constants():
    from e3nn.nn import Gate

    sizes = (5, 3, 2)
    theirs = Gate("5x0e", [torch.nn.functional.silu], "5x0e", [torch.sigmoid], as_irreps(sizes, 1))
    f = torch.randn(7, sum(n * (2 * i + 1) for i, n in enumerate(irreps.gated(sizes))))
    constants = [
        torch.full((n * (2 * i + 1),), theirs.act_gates.acts[0].cst) for i, n in enumerate(sizes)
    ]
    constants[0][:] = theirs.act_scalars.acts[0].cst
    reference = theirs(mul_first(f, irreps.gated(sizes))) / torch.cat(constants)
    assert (mul_first(irreps.gate(f, sizes), sizes) - reference).abs().max() < 1e-5
