"""A configuration made into objects: the whole model, from data to latents to samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anylatent.core.autoencoder import Autoencoder
from anylatent.core.condition import Condition
from anylatent.core.denoiser import Preconditioned
from anylatent.core.files import UserError
from anylatent.core.generators import Callback, Generator, Guidance
from anylatent.core.grids import Grid
from anylatent.core.guidance.completion import Completion, begin_with
from anylatent.core.latent import Latent
from anylatent.core.modality import Conditioner, Modality, Outputs
from anylatent.core.noise import Noise
from anylatent.core.normaliser import Normaliser
from anylatent.core.registry import build
from anylatent.core.solvers import Solver

Config = Mapping[str, Any]
"""A resolved configuration: plain dictionaries, lists, strings and numbers."""

LOSS_GROUPS = ("perceptual", "adversary")


class System(nn.Module):
    """Modality, conditioner, autoencoder, normaliser and generator, built from a configuration.

    `facts` are what the data said about themselves (shape, class names). Sizes flow from one
    object to the next: the autoencoder's spec and the conditioner's make the backbone.
    """

    modality: Modality
    conditioner: Conditioner
    autoencoder: Autoencoder
    normaliser: Normaliser
    generator: Generator

    def __init__(self, config: Config, facts: Mapping[str, Any], training: bool = False) -> None:
        """`training` also builds the networks that only the losses use."""
        super().__init__()
        shared = dict(facts)
        self.modality = build("modality", config["modality"], **shared)
        shared["modality"] = self.modality
        self.conditioner = build("conditioner", config["conditioner"], **shared)
        needed = ("bottleneck", *LOSS_GROUPS) if training else ("bottleneck",)
        for group in needed:
            if config.get(group) is not None:
                shared[group] = build(group, config[group], **facts)
        self.autoencoder = build("autoencoder", config["autoencoder"], **shared)
        self.normaliser = Normaliser(self.autoencoder.spec)
        schedule = build("schedule", config["schedule"])
        objective = build(
            "objective",
            config["objective"],
            times=build("times", config["times"]),
            weighting=build("weighting", config["weighting"]),
        )
        conditions = self.conditioner.spec
        backbone = build(
            "backbone", config["backbone"], spec=self.autoencoder.spec, conditions=conditions
        )
        prediction = build("prediction", config["prediction"])
        denoiser = Preconditioned(backbone, schedule, prediction, config.get("data_std", 1.0))
        self.generator = build(
            "generator", config["generator"], denoiser=denoiser, objective=objective
        )

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def columns(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a batch that the conditioner reads."""
        return {name: batch[name] for name in self.conditioner.spec.names if name in batch}

    def condition(self, columns: Mapping[str, Any]) -> Condition | None:
        """The condition of a batch from raw columns, one entry per sample; None without any."""
        known = self.columns(columns)
        return self.conditioner(known).to(self.device) if known else None

    @property
    def asks(self) -> list[str]:
        """The names that a user may give as `cond.name=...`."""
        return list(dict.fromkeys([*self.conditioner.spec.names, *self.modality.asks]))

    @torch.no_grad()
    def sample(
        self,
        noise: Noise,
        columns: Mapping[str, Any],
        solver: Solver,
        grid: Grid,
        steps: int,
        guidance: Guidance | None,
        callback: Callback | None = None,
    ) -> Outputs:
        """Decoded samples, one for each seed of `noise`."""
        blank = self.modality.blank(self.autoencoder.spec, noise.batch, noise, columns)
        blank, cond = blank.to(self.device), self.condition(columns)
        known = self.modality.known(noise.batch, columns)
        if known is not None:
            guidance = self.completing(known, blank, guidance)
        z = self.generator.sample(blank, cond, solver, grid, steps, guidance, noise, callback)
        outputs = self.decode(z)
        return outputs if known is None else self.modality.complete(outputs, known)

    def completing(
        self, known: Mapping[str, Any], blank: Latent, guidance: Guidance | None
    ) -> Guidance:
        """Guidance towards samples that begin with known data, after any other."""
        moved = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in known.items()}
        begun, given = begin_with(
            self.normaliser.encode(self.autoencoder.encode(moved).mean), blank
        )
        return lambda denoiser: Completion(
            denoiser if guidance is None else guidance(denoiser), begun, given
        )

    @torch.no_grad()
    def decode(self, z: Latent) -> Outputs:
        """Outputs of latents in the diffusion model's scale."""
        return self.autoencoder.decode(self.normaliser.decode(z))

    # ---- weights ------------------------------------------------------------------------------
    def trained(self) -> dict[str, Tensor]:
        """The weights that a run needs to sample: no frozen encoders, no adversary."""
        return {
            f"{name}.{key}": value
            for name in ("autoencoder", "normaliser", "generator")
            for key, value in getattr(self, name).state_dict().items()
            if key.split(".")[0] not in LOSS_GROUPS
        }

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies weights in; names and shapes must be exactly those of this architecture."""
        own = self.trained()
        problems = [f"missing {name}" for name in own if name not in tensors]
        problems += [f"unknown {name}" for name in tensors if name not in own]
        problems += [
            f"{name} has shape {tuple(tensors[name].shape)}, wanted {tuple(value.shape)}"
            for name, value in own.items()
            if name in tensors and tensors[name].shape != value.shape
        ]
        if problems:
            shown = "; ".join(problems[:4]) + (" ..." if len(problems) > 4 else "")
            raise UserError(
                f"the weights are of another architecture than the configuration says "
                f"({len(problems)} differences: {shown})"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensors[name])


def sampling_parts(config: Config) -> tuple[Solver, Grid, Callable[..., Any] | None]:
    """Solver, grid and guidance of a configuration; guidance awaits its denoiser."""
    solver: Solver = build("solver", config["solver"])
    grid: Grid = build("grid", config["grid"])
    node = config.get("guidance")
    if node is None:
        return solver, grid, None
    return solver, grid, lambda denoiser: build("guidance", node, denoiser=denoiser)
