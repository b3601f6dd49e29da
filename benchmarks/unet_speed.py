"""Training steps per second of our U-Net beside diffusers' UNet2DModel of equal size, in one run.

    python benchmarks/unet_speed.py [seconds] [--bf16] [--device cuda]

Latents (4, 16, 16), batch 16, equal levels, blocks, attention (second level and middle), parameter
counts within 3 %, the same optimiser and loss, interleaved in short turns so that whatever else the
machine does hits both. diffusers' model is timed as it comes and in channels_last. On the CPU the
rate is per second of processor time of one thread, on a GPU per second. Target: at least as many
steps as the better of the two.
"""

import argparse
import statistics
import time

import torch
from torch import nn

import anylatent as al
from anylatent.core.nn.unet import UNet

SHAPE, BATCH, WIDTH = (4, 16, 16), 16, 64


def count(network):
    return sum(p.numel() for p in network.parameters())


def theirs():
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=SHAPE[1],
        in_channels=SHAPE[0],
        out_channels=SHAPE[0],
        layers_per_block=2,
        block_out_channels=(WIDTH, 2 * WIDTH),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
    )


def ours(target):
    """Our U-Net of the same shape; the width of its embedding makes the parameter counts equal."""
    spec = al.LatentSpec({"z": al.Field(SHAPE, channels=0)})
    options = [
        UNet(spec, channels=WIDTH, multipliers=(1, 2), blocks=2, attention=(8,), embedding=width)
        for width in range(128, 513, 32)
    ]
    return min(options, key=lambda network: abs(count(network) - target))


class Turn:
    """One network with its optimiser; `step` is one training step."""

    def __init__(self, network, forward, device, bf16):
        self.network, self.forward = network.to(device), forward
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
        self.device, self.bf16, self.rates = device, bf16, []
        self.x, self.target = (torch.randn(BATCH, *SHAPE, device=device) for _ in range(2))
        self.level = torch.rand(BATCH, device=device)

    def step(self):
        kind = self.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.bf16):
            output = self.forward(self.network, self.x, self.level)
        loss = nn.functional.mse_loss(output.float(), self.target)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def turn(self, steps):
        start = self._clock()
        for _ in range(steps):
            self.step()
        self.rates.append(steps / (self._clock() - start))

    def _clock(self):
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def forward_ours(network, x, level):
    latent = al.Latent({"z": x}, {}, network.spec)
    return network(latent, level)["z"]


def forward_theirs(network, x, level):
    return network(x, level, return_dict=False)[0]


def forward_theirs_last(network, x, level):
    x = x.contiguous(memory_format=torch.channels_last)
    return network(x, level, return_dict=False)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("seconds", nargs="?", type=float, default=60)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(chosen.device)
    reference = theirs()
    mine, last = ours(count(reference)), theirs().to(memory_format=torch.channels_last)
    turns = {
        "anylatent UNet": Turn(mine, forward_ours, device, chosen.bf16),
        "diffusers UNet2DModel": Turn(reference, forward_theirs, device, chosen.bf16),
        "the same, channels_last": Turn(last, forward_theirs_last, device, chosen.bf16),
    }
    for turn in turns.values():
        turn.step()
    end = time.perf_counter() + chosen.seconds
    while time.perf_counter() < end:
        for turn in turns.values():
            turn.turn(2 if device.type == "cpu" else 20)
    print(f"latents {SHAPE}, batch {BATCH}, {device}, bf16 {chosen.bf16}")
    print(f"{'network':<26}{'parameters':>12}{'steps/s':>9}{'ours/theirs':>13}")
    own = statistics.median(turns["anylatent UNet"].rates)
    for name, turn in turns.items():
        rate = statistics.median(turn.rates)
        print(f"{name:<26}{count(turn.network):>12,}{rate:>9.2f}{own / rate:>13.2f}")


if __name__ == "__main__":
    main()
