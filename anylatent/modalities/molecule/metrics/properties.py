"""Does a molecule have the property that was asked for? A regressor says, learned from real ones.

The protocol of EDM (2203.17003): the regressor learns from molecules that the generator has not
seen, and the mean absolute error between what was asked and what it finds stands beside that of
three others: real molecules with their own property (the least that can be reached), real molecules
with the property of another (no control at all), and the best guess from the number of atoms alone
(control of nothing but the size).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from anylatent.modalities.molecule.egnn import EGNN
from anylatent.modalities.molecule.molecules import Molecules
from anylatent.modalities.shared import probes

STEPS, BATCH, RATE = 3000, 64, 2e-3
VERSION = 1
_LARGEST = 119  # atomic numbers


class PropertyRegressor(nn.Module):
    """Properties (B, K), in units of their deviation, from positions and atomic numbers.

    EGNN (2102.09844); each atom contributes to the mean over the molecule.
    """

    def __init__(self, properties: int, width: int = 96, edge: int = 48, depth: int = 4) -> None:
        super().__init__()
        self.element = nn.Embedding(_LARGEST, 16)
        self.network = EGNN(17, width, edge, depth, basis=24)
        self.last = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * properties)
        )

    def forward(self, x: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        size = mask.sum(1)[:, None, None].expand(-1, mask.shape[1], 1) / 20
        features = torch.cat([self.element(z), size.to(x)], -1)
        _, h = self.network(x, features, mask)
        each = torch.where(mask[..., None], self.last(h), 0)
        mean, total = each.chunk(2, -1)  # some properties are of each atom, some grow with size
        found: Tensor = mean.sum(1) / mask.sum(1)[:, None] + total.sum(1) / 20
        return found


def pack(molecules: Molecules, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Some molecules as a padded batch: x (B, N, 3), z (B, N), mask (B, N)."""
    chosen = [molecules[row] for row in rows]
    pad = nn.utils.rnn.pad_sequence
    x = pad([molecule.x - molecule.x.mean(0) for molecule in chosen], batch_first=True)
    z = pad([molecule.z for molecule in chosen], batch_first=True)
    sizes = torch.tensor([len(molecule) for molecule in chosen])
    return x, z, torch.arange(x.shape[1]) < sizes[:, None]


def learn(molecules: Molecules, targets: Tensor, steps: int) -> dict[str, Tensor]:
    """The state of a regressor of `targets` (M, K), and their scale. Deterministic."""
    mean, std = targets.mean(0), targets.std(0).clamp(min=1e-12)
    with probes.seeded():
        regressor = PropertyRegressor(targets.shape[1])
    optimizer = torch.optim.AdamW(regressor.parameters(), lr=RATE, weight_decay=0.01)
    batch = min(BATCH, len(molecules))
    sampler = probes.batches(len(molecules), batch, steps, molecules.sizes.clone())

    def backward(rows: list[int]) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            found = regressor(*pack(molecules, rows))
        loss = (found.float() - (targets[rows] - mean) / std).abs().mean()
        loss.backward()

    probes.learn(regressor, [optimizer], sampler, backward, "learning properties")
    return {**regressor.state_dict(), "mean": mean, "std": std}


@torch.no_grad()
def predict(state: Mapping[str, Tensor], molecules: Molecules) -> Tensor:
    """The properties (M, K), in the unit of the targets, that `learn`'s regressor finds."""
    weights = {name: value for name, value in state.items() if name not in ("mean", "std")}
    regressor = probes.restored(lambda: PropertyRegressor(len(state["mean"])), weights)
    order = molecules.sizes.argsort(stable=True)
    found = torch.zeros(len(molecules), len(state["mean"]))
    for rows in torch.split(order, 256):
        found[rows] = regressor(*pack(molecules, rows.tolist()))
    return found * state["std"] + state["mean"]


def guess_from_sizes(sizes: Tensor, values: Tensor, asked: Tensor) -> Tensor:
    """The median of `values` (M,) among molecules of each size, for sizes `asked`.

    The guess of least absolute error; of the nearest size where none is equal.
    """
    known = torch.unique(sizes)
    medians = torch.stack([values[sizes == size].median() for size in known])
    nearest = (asked[:, None] - known).abs().argmin(1)
    return medians[nearest]
