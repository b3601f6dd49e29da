"""Compiled networks: one graph each, none for each size, and no complex numbers in them."""

from collections import Counter

import pytest
import torch
from torch._dynamo.utils import counters

import anylatent as al
from anylatent.modalities.molecule.pairs import ends_of

SPECS = al.testing.SPECS
SMALL = {
    "unet": {"channels": 16, "blocks": 1},
    "dit": {"width": 32, "depth": 2, "heads": 2},
    "transformer": {"width": 32, "depth": 2, "heads": 2},
    "egnn": {"width": 16, "edge": 8, "depth": 2},
}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Counting:
    """A compiler that counts the graphs that it is given, and runs them as they are."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, _):
        self.graphs.append(graph)
        return graph.forward

    @property
    def complex(self):
        """How many values in them are complex."""
        values = (node.meta.get("example_value") for g in self.graphs for node in g.graph.nodes)
        return sum(isinstance(x, torch.Tensor) and x.is_complex() for x in values)


def of(spec, *lengths):
    told = torch.tensor(lengths) if any(f.variable for f in spec.fields.values()) else None
    return al.Noise.of(0, len(lengths)).like(spec.blank(len(lengths), told))


def outputs(name, spec, batches):
    """Of a network and of the same one compiled, both with noise in each weight; the compiler."""
    torch.manual_seed(0)
    network, counting = al.get("backbone", name)(spec=spec, **SMALL[name]).eval(), Counting()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    compiled = torch.compile(network, backend=counting)
    with torch.no_grad():
        for x in batches:
            level = torch.linspace(-1, 1, x.batch)
            plain, made = network(x, level), compiled(x, level)
            for key, value in plain.parts.items():
                assert torch.allclose(made[key], value, rtol=1e-4, atol=1e-5), key
    return counting


@pytest.mark.parametrize(
    ("name", "spec"), [("unet", "image"), ("dit", "image"), ("transformer", "text")]
)
def test_one_graph(name, spec):
    found = outputs(name, SPECS[spec], [of(SPECS[spec], 5, 7, 3)] * 2)
    assert len(found.graphs) == 1 and not counters["graph_break"] and not found.complex


@pytest.mark.parametrize(("name", "spec"), [("egnn", "molecule"), ("transformer", "text")])
@pytest.mark.parametrize("less", [0, 2])
def test_a_few_graphs_for_all_sizes(name, spec, less):
    batches = [of(SPECS[spec], n, n - less, n) for n in range(3, 30)]
    found = outputs(name, SPECS[spec], batches)
    assert len(found.graphs) <= 4 and not counters["graph_break"] and not found.complex
    assert Counter(counters["frames"])["ok"] == len(found.graphs)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 29, 61, 180, 2999])
def test_pairs_are_numbered_as_torch_numbers_them(count):
    first, second = ends_of(count, torch.arange(count * (count - 1) // 2))
    wanted = torch.triu_indices(count, count, 1)
    assert torch.equal(first, wanted[0]) and torch.equal(second, wanted[1])
