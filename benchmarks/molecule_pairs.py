"""Three ways to pass EGNN's messages: dense pairs, listed pairs, torch_geometric, by molecule size.

    python benchmarks/molecule_pairs.py [turns] [--bf16] [--device cuda]

Milliseconds of a training step (forward and backward) of our EGNN, width 128, messages of 48, 6
layers, at about 1,150 atoms a batch: all of one size, and of mixed sizes padded to the largest
(QM9's own sizes at 64 a batch, without buckets). `dense` multiplies with incidence matrices over
all pairs of the padded batch, `list` gathers and scatters the valid pairs, `torch_geometric` does
the same through its MessagePassing, on both directions of each pair as it is meant to be used. All
three have the same weights and give the same output (checked). Interleaved; processor time of one
thread.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

import anylatent as al
from anylatent.modalities.molecule import egnn
from anylatent.modalities.molecule.backbone import EGNNBackbone
from anylatent.modalities.molecule.pairs import Pairs

SIZES = {"9 atoms": [9] * 128, "18 atoms": [18] * 64, "29 atoms": [29] * 40, "60 atoms": [60] * 19}


def geometric_pairs():
    """Pairs whose sums are torch_geometric's MessagePassing."""
    from torch_geometric.nn import MessagePassing

    class Sum(MessagePassing):
        """The sum of messages that lie on the edges."""

        def __init__(self):
            super().__init__(aggr="add")

        def forward(self, message: Tensor, edges: Tensor, count: int) -> Tensor:
            return self.propagate(edges, message=message, size=(count, count))

        def message(self, message: Tensor) -> Tensor:
            return message

    class GeometricPairs(Pairs):
        def __init__(self, mask: Tensor) -> None:
            self.shape = mask.shape
            batch, count = mask.shape
            different = ~torch.eye(count, dtype=torch.bool, device=mask.device)
            row, i, j = (mask[:, :, None] & mask[:, None] & different).nonzero(as_tuple=True)
            self.target, self.source = row * count + i, row * count + j
            self.edges, self.sum = torch.stack([self.source, self.target]), Sum()

        def total(self, node, pair):
            flat = node.flatten(0, 1)
            return (flat[self.target] + flat[self.source])[None] + pair

        def difference(self, node):
            flat = node.flatten(0, 1)
            return (flat[self.target] - flat[self.source])[None]

        def gather(self, pair, weight):
            count = self.shape[0] * self.shape[1]
            return self.sum((pair * weight)[0], self.edges, count).unflatten(0, self.shape)

        spread = gather

    return GeometricPairs


class Form:
    """One way to pass messages, with the weights of the others."""

    def __init__(self, pairs, weights, device, bf16):
        self.pairs, self.device, self.bf16, self.times = pairs, device, bf16, []
        self.network = EGNNBackbone(width=128, edge=48, depth=6, pairs=pairs or "list").to(device)
        if weights is not None:
            self.network.load_state_dict(weights)

    def step(self, x, c_noise):
        original = egnn.ListedPairs
        if not self.pairs:
            egnn.ListedPairs = geometric_pairs()
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                out = self.network(x, c_noise)
            self.network.zero_grad()
            out.dot(out).mean().backward()
        finally:
            egnn.ListedPairs = original
        return out.detach()

    def time(self, x, c_noise):
        start = clock(self.device)
        self.step(x, c_noise)
        self.times.append(1e3 * (clock(self.device) - start))


def clock(device):
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def mixed():
    """The sizes of 64 molecules of QM9."""
    data = al.get("data", "qm9")().train()
    return data.lengths[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:64]]


def awake(network):
    """No weight is zero, so that outputs can differ."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.state_dict()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("turns", nargs="?", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(options.device)
    first = Form("dense", None, device, options.bf16)
    weights = awake(first.network)
    print(f"{'':<16}{'dense':>10}{'list':>10}{'torch_geometric':>18}   ms a step")
    for name, sizes in {**SIZES, "mixed, padded": mixed()}.items():
        forms = [first, *(Form(kind, weights, device, options.bf16) for kind in ("list", ""))]
        blank = first.network.spec.blank(len(sizes), sizes)
        x = al.Noise.of(0, len(sizes)).like(blank).to(device)
        c_noise = torch.zeros(x.batch, device=device)
        outputs = [form.step(x, c_noise) for form in forms]
        for out in outputs[1:]:
            gap = max(float((out[k] - outputs[0][k]).abs().max()) for k in out.parts)
            scale = max(float(part.abs().max()) for part in out.parts.values())
            assert gap < (0.1 if options.bf16 else 1e-3) * scale, f"{name}: outputs differ by {gap}"
        first.times.clear()
        for _ in range(options.turns):
            for form in forms:
                form.time(x, c_noise)
        dense, listed, geometric = (statistics.median(form.times) for form in forms)
        print(f"{name:<16}{dense:>10.1f}{listed:>10.1f}{geometric:>18.1f}")


if __name__ == "__main__":
    main()
