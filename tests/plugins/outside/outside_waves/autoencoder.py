"""Signals to latents `z` (channels, length/4) and back, by strided convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import anylatent as al
from outside_waves.outputs import Signals


class WaveAutoencoder(al.Autoencoder):
    """A variational autoencoder; the loss is (x̂ − x)² and `kl` · KL per latent number."""

    def __init__(
        self,
        shape: tuple[int, int] = (1, 32),
        *,
        latent_channels: int = 2,
        width: int = 32,
        kl: float = 1e-3,
    ) -> None:
        super().__init__()
        if shape[1] % 4:
            raise ValueError(f"the length of signals must be a multiple of 4, got {shape[1]}")
        field = al.Field((latent_channels, shape[1] // 4), channels=0)
        self.spec, self.kl = al.LatentSpec({"z": field}), kl
        around: dict[str, Any] = {"padding": 1, "padding_mode": "circular"}
        self.encoder = nn.Sequential(
            nn.Conv1d(shape[0], width, 4, stride=4),
            nn.SiLU(),
            nn.Conv1d(width, 2 * latent_channels, 3, **around),
        )
        self.decoder = nn.Sequential(
            nn.Conv1d(latent_channels, width, 3, **around),
            nn.SiLU(),
            nn.ConvTranspose1d(width, shape[0], 4, stride=4),
        )

    def encode(self, batch: Mapping[str, Any]) -> al.Posterior:
        mean, log_std = self.encoder(batch["signal"]).chunk(2, 1)
        wrap = self.spec.wrap
        return al.Posterior(wrap({"z": mean}), wrap({"z": log_std.clamp(-10, 2)}))

    def decode(self, z: al.Latent) -> Signals:
        return Signals(self.decoder(z["z"]))

    def loss(
        self, batch: Mapping[str, Any], noise: al.Noise, step: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        posterior = self.encode(batch)
        output: Tensor = self.decoder(posterior.sample(noise)["z"])
        square = (output - batch["signal"]).square().flatten(1).mean(1)
        return {"l2": square, "kl": self.kl * posterior.kl() / posterior.mean.dim}, output

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        return {"weight_norm": float(sum(p.square().sum() for p in self.parameters()) ** 0.5)}
