"""Training steps per second of our DiT and our text transformer beside plain ones of equal blocks.

    python benchmarks/transformer_speed.py [seconds] [--device cuda]

The plain ones are written here, after the papers alone: blocks of attention and a network, steered
by adaLN-zero (2212.09748), without conditions, guests or padding; that of texts turns queries and
keys with their places (2104.09864) by a table that is made once. Ours normalise queries and keys,
which the plain ones do not; they are measured without, too. diffusers' DiT is measured beside
ours. One thread, batches of 16, in float32 and, where the device computes in it, in bfloat16.
Target: as many steps as the plain one.
"""

import argparse
import json

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from turns import Turn, compare, settings

import anylatent as al

BATCH, WIDTH, DEPTH, HEADS = 16, 192, 4, 4
PICTURE, TEXT = (4, 8, 8), (48, 32)


class PlainBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(2))
        self.attention, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.network = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x, embedding, turn):
        told = self.modulation(embedding)[:, None].chunk(6, -1)
        shift, scale, gate, shift2, scale2, gate2 = told
        h = self.norms[0](x) * (1 + scale) + shift
        parts = self.attention(h).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        if turn is not None:
            q, k = (turned(part, turn).to(v.dtype) for part in (q, k))
        attended = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate * self.out(attended)
        return x + gate2 * self.network(self.norms[1](x) * (1 + scale2) + shift2)


def turned(x, turn):
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2)


class Plain(nn.Module):
    """Tokens (B, N, size) and a level (B,)."""

    def __init__(self, count, size, rotary):
        super().__init__()
        self.first, self.last = nn.Linear(size, WIDTH), nn.Linear(WIDTH, size)
        self.places = nn.Parameter(torch.randn(count, WIDTH) * 0.02)
        self.level = nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.blocks = nn.ModuleList(PlainBlock() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.modulation = nn.Linear(WIDTH, 2 * WIDTH)
        angle = torch.arange(count)[:, None] * 1e4 ** (
            -torch.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS)
        )
        self.turn = torch.polar(torch.ones_like(angle), angle) if rotary else None

    def forward(self, tokens, level):
        waves = level[:, None] * torch.logspace(-2, 2, 128, device=level.device)
        embedding = nn.functional.silu(self.level(torch.cat([waves.sin(), waves.cos()], -1)))
        x = self.first(tokens) + self.places
        for block in self.blocks:
            x = block(x, embedding, self.turn)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, -1)
        return self.last(self.norm(x) * (1 + scale) + shift)


def plain_of_picture(network, z, level):
    tokens = network(z.flatten(2).transpose(1, 2), level)
    return tokens.transpose(1, 2).unflatten(2, PICTURE[1:])


def mine_of_picture(network, z, level):
    return network(al.Latent({"z": z}, {}, network.spec), level)["z"]


def mine_of_text(network, z, level):
    blank = network.spec.blank(BATCH, [TEXT[0]] * BATCH, device=z.device)
    return network(blank.replace(z=z), level)["z"]


def theirs_of_picture(network, z, level):
    label = torch.zeros(len(z), dtype=torch.long, device=z.device)
    return network(z, (1000 * level).long(), label, return_dict=False)[0]


def diffusers():
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=PICTURE[0],
        num_layers=DEPTH,
        sample_size=PICTURE[1],
        patch_size=1,
        num_embeds_ada_norm=1000,
    )


def networks(kind):
    """How they are called, and those to compare, ours first."""
    size = {"width": WIDTH, "depth": DEPTH, "heads": HEADS}
    if kind == "DiT":
        spec, make = al.LatentSpec({"z": al.Field(PICTURE, channels=0)}), al.get("backbone", "dit")
        call = mine_of_picture
        own = (plain_of_picture, Plain(PICTURE[1] * PICTURE[2], PICTURE[0], False))
        other = {"diffusers DiT": (theirs_of_picture, diffusers())}
    else:
        spec = al.LatentSpec({"z": al.Field((None, TEXT[1]))})
        make, call, other = al.get("backbone", "transformer"), mine_of_text, {}
        own = (lambda network, z, level: network(z, level), Plain(*TEXT, True))
    return {
        f"anylatent {kind}": (call, make(spec=spec, **size)),
        "without normed queries": (call, make(spec=spec, normed=False, **size)),
        f"a plain {kind}": own,
        **other,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    seconds, device, fast = settings(parser, 40)
    torch.set_num_threads(1)
    ratios = {}
    for kind, shape in (("DiT", PICTURE), ("text transformer", TEXT)):
        for bf16 in (False, True) if fast else (False,):
            precision = "bf16" if bf16 else "fp32"
            print(f"\n{kind}, {shape}, batch {BATCH}, {device}, {precision}")
            x, target = (torch.randn(BATCH, *shape, device=device) for _ in range(2))
            told = ((x, torch.rand(BATCH, device=device)), target, device, bf16)
            found = networks(kind).items()
            turns = {name: Turn(network, call, *told) for name, (call, network) in found}
            compared = compare(turns, seconds, f"anylatent {kind}")
            ratios[f"{kind}, {precision}"] = compared[f"a plain {kind}"]
    print("ratios", json.dumps(ratios))


if __name__ == "__main__":
    main()
