"""Training steps of several networks, measured in turns so that all see the same machine."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count(network):
    return sum(p.numel() for p in network.parameters())


class Turn:
    """One network with its optimiser, fused AdamW; `forward` calls it on `inputs`, whose output is
    to be `target`."""

    def __init__(self, network, forward, inputs, target, device, bf16):
        self.network, self.forward, self.inputs = network.to(device), forward, inputs
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        self.device, self.bf16, self.target, self.rates = device, bf16, target, []

    def step(self):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            output = self.forward(self.network, *self.inputs)
        loss = nn.functional.mse_loss(output.float(), self.target)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def turn(self, steps):
        start = self._clock()
        for _ in range(steps):
            self.step()
        self.rates.append(steps / (self._clock() - start))

    @property
    def rate(self):
        return statistics.median(self.rates)

    def operations(self):
        """Floating-point operations of a step, forward and backward, in units of 1e9."""
        with FlopCounterMode(display=False) as counter:
            self.step()
        return counter.get_total_flops() / 1e9

    def _clock(self):
        """Of the processor, which other programs hardly change; where several threads or a GPU
        compute, of the clock."""
        if self.device.type == "cpu" and torch.get_num_threads() == 1:
            return time.process_time()
        if self.device.type != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


def compare(turns, seconds, first):
    """Measures `turns`, by name, in turn; prints a row for each, and returns how many steps `first`
    takes while each other one takes one."""
    for turn in turns.values():
        turn.step()
    end, steps = time.perf_counter() + seconds, 2 if turns[first].device.type == "cpu" else 20
    while time.perf_counter() < end or len(turns[first].rates) < 3:
        for turn in turns.values():
            turn.turn(steps)
    ratios = {name: turns[first].rate / turn.rate for name, turn in turns.items()}
    print(f"{'network':<28}{'parameters':>12}{'GFLOP/step':>12}{'steps/s':>9}{'ours/theirs':>13}")
    for name, turn in turns.items():
        numbers = f"{count(turn.network):>12,}{turn.operations():>12.2f}{turn.rate:>9.2f}"
        print(f"{name:<28}{numbers}{ratios[name]:>13.2f}", flush=True)
    return ratios


def settings(parser, seconds):
    """What all of these are told; returns the device and whether bfloat16 is computed there."""
    from anylatent.core.support.hardware import has_bfloat16

    parser.add_argument("seconds", nargs="?", type=float, default=seconds, help="for each table")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    fast = has_bfloat16(device.type)
    if not fast:
        print(f"{device} only emulates bfloat16, which is not measured")
    return chosen.seconds, device, fast
