"""Training throughput of our EGNN on QM9 beside a straightforward loop, in one run.

    python benchmarks/molecule_speed.py [turns] [--bf16] [--batch 64] [--device cuda]

The straightforward loop is written as reference implementations of EGNN (2102.09844) and EDM
(2203.17003) do it: every molecule padded to 29 atoms, an edge list of all ordered pairs, messages
from a two-layer network of both ends and squared distances as wide as the nodes, a gate, a separate
three-layer network for the coordinates, sums by index. Ours has buckets of equal sizes, each pair
once, one network for messages and coordinates, narrower messages, and radial basis functions. Same
width, depth, batch and optimiser; molecules per second of training (forward, backward, step) on the
same real molecules, interleaved in short turns. On the CPU the rate is per second of processor time
of one thread. Target: at least 5 times. `as wide` is ours with messages as wide as the nodes.
"""

import argparse
import statistics
import time

import torch
from torch import nn

import anylatent as al
from anylatent.core.training.step_sampler import StepSampler
from anylatent.modalities.molecule.backbone import EGNNBackbone

WIDTH, DEPTH, LARGEST = 128, 6, 29


class PlainLayer(nn.Module):
    """One layer of EGNN on an edge list, with separate networks for messages and coordinates."""

    def __init__(self, width):
        super().__init__()
        pair = 2 * width + 2
        silu = nn.SiLU
        self.edge = nn.Sequential(nn.Linear(pair, width), silu(), nn.Linear(width, width), silu())
        self.gate = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())
        self.node = nn.Sequential(nn.Linear(2 * width, width), silu(), nn.Linear(width, width))
        self.coordinate = nn.Sequential(
            nn.Linear(pair, width), silu(), nn.Linear(width, width), silu(), nn.Linear(width, 1)
        )

    def forward(self, x, h, rows, columns, start, node_mask, edge_mask):
        delta = x[rows] - x[columns]
        square = delta.square().sum(1, keepdim=True)
        known = torch.cat([h[rows], h[columns], square, start], 1)
        message = self.edge(known)
        message = message * self.gate(message) * edge_mask
        total = torch.zeros_like(h).index_add(0, rows, message)
        h = (h + self.node(torch.cat([h, total], 1))) * node_mask
        known = torch.cat([h[rows], h[columns], square, start], 1)
        push = delta / (square.sqrt() + 1) * self.coordinate(known) * edge_mask
        return (x + torch.zeros_like(x).index_add(0, rows, push)) * node_mask, h


class Plain(nn.Module):
    """EGNN as a straightforward loop; the noise level is one more input feature."""

    def __init__(self, features, width, depth):
        super().__init__()
        self.first, self.last = nn.Linear(features + 1, width), nn.Linear(width, features)
        self.layers = nn.ModuleList(PlainLayer(width) for _ in range(depth))

    def forward(self, x, h, mask, c_noise):
        batch, count = mask.shape
        index = torch.arange(count, device=x.device)
        rows = index.repeat_interleave(count)
        columns = index.repeat(count)
        offset = (torch.arange(batch, device=x.device) * count)[:, None]
        rows, columns = (offset + rows).flatten(), (offset + columns).flatten()
        node_mask = mask.reshape(-1, 1).to(x.dtype)
        edge_mask = node_mask[rows] * node_mask[columns] * (rows != columns)[:, None]
        level = c_noise[:, None, None].expand(batch, count, 1)
        start_x = x = x.reshape(-1, 3)
        h = self.first(torch.cat([h, level], -1).reshape(batch * count, -1)) * node_mask
        start = (x[rows] - x[columns]).square().sum(1, keepdim=True)
        for layer in self.layers:
            x, h = layer(x, h, rows, columns, start, node_mask, edge_mask)
        return (x - start_x).view(batch, count, 3), self.last(h).view(batch, count, -1)


class Turn:
    """One network with its optimiser and its own way of making batches."""

    def __init__(self, network, batches, device, bf16):
        self.network, self.batches = network.to(device), iter(batches)
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
        self.device, self.bf16, self.rates = device, bf16, []

    def step(self):
        z = next(self.batches).to(self.device)
        c_noise = torch.zeros(z.batch, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if isinstance(self.network, EGNNBackbone):
                out = self.network(z, c_noise)
            else:
                x, h = self.network(z["x"], z["h"], z.masks["x"], c_noise)
                out = z.replace(x=x.to(z.dtype), h=h.to(z.dtype))
        loss = out.mse(z).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return z.batch

    def turn(self, steps):
        start = self._clock()
        molecules = sum(self.step() for _ in range(steps))
        self.rates.append(molecules / (self._clock() - start))

    def _clock(self):
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def batches(modality, items, sampler, padded=None):
    """Batches as noisy latents in data space; `padded` to a fixed number of atoms."""
    for indices in sampler:
        z = modality.data_space.lift(modality.collate([items[i] for i in indices]))
        if padded is not None:
            blank = z.spec.blank(z.batch, z.lengths("x"), padded=padded)
            z = blank.map(lambda wide, x: nn.functional.pad(x, (0, 0, 0, padded - x.shape[1])), z)
        yield z


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("turns", nargs="?", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device, data = torch.device(options.device), al.get("data", "qm9")()
    modality = al.get("modality", "molecule")(**{k: data.facts[k] for k in ("elements", "charges")})
    items, spec = data.train(), modality.data_space.spec
    settings = {"size": len(items), "batch": options.batch, "start": 0, "rank": 0, "world": 1}
    bucketed = StepSampler(**settings, steps=10**6, seed=0, lengths=items.lengths)
    shuffled = StepSampler(**settings, steps=10**6, seed=0)
    features = spec.fields["h"].rest[0]
    ours = EGNNBackbone(spec, width=WIDTH, depth=DEPTH)
    wide = EGNNBackbone(spec, width=WIDTH, edge=WIDTH, depth=DEPTH)
    turns = {
        "plain loop": Turn(
            Plain(features, WIDTH, DEPTH),
            batches(modality, items, shuffled, LARGEST),
            device,
            options.bf16,
        ),
        "ours": Turn(ours, batches(modality, items, bucketed), device, options.bf16),
        "as wide": Turn(wide, batches(modality, items, bucketed), device, options.bf16),
        "unbucketed": Turn(
            EGNNBackbone(spec, width=WIDTH, depth=DEPTH),
            batches(modality, items, shuffled),
            device,
            options.bf16,
        ),
    }
    for turn in turns.values():
        turn.turn(1)  # warms up
        turn.rates.clear()
    for _ in range(options.turns):
        for turn in turns.values():
            turn.turn(4)
    base = statistics.median(turns["plain loop"].rates)
    for name, turn in turns.items():
        rate = statistics.median(turn.rates)
        count = sum(p.numel() for p in turn.network.parameters())
        print(f"{name:<11} {rate:8.1f} molecules/s, {rate / base:5.2f}x, {count:,} parameters")


if __name__ == "__main__":
    main()
