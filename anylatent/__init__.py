"""anylatent: one latent diffusion core for every modality.

The public names are loaded on first use: importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "as_denoise": "core.denoisers",
    "as_time": "core.process",
    "asked_of": "core.modality",
    "Autoencoder": "core.autoencoders",
    "Backbone": "core.nn.backbone",
    "Cascade": "core.generators",
    "combine": "core.latents",
    "Command": "core.cli.command",
    "Comparable": "core.modality.outputs",
    "compare": "core.modality",
    "Condition": "core.latents",
    "Conditioner": "core.modality",
    "ConditionSpec": "core.latents",
    "Data": "core.modality",
    "DataSpace": "core.modality",
    "Denoise": "core.denoisers",
    "Denoiser": "core.denoisers",
    "Denoising": "core.objectives",
    "Diffusion": "core.generators",
    "facts": "core.registry",
    "Field": "core.latents",
    "FixedSizes": "core.modality",
    "Generator": "core.generators",
    "get": "core.registry",
    "Guest": "core.nn.guests",
    "Hosting": "core.nn.guests",
    "Site": "core.nn.sites",
    "Given": "core.modality",
    "Grid": "core.process",
    "group": "core.registry",
    "invert": "core.solvers",
    "Latent": "core.latents",
    "LatentEncoder": "core.modality",
    "LatentSpec": "core.latents",
    "Likelihood": "core.likelihood",
    "load": "core.runs",
    "Lossy": "core.modality.outputs",
    "log_likelihood": "core.likelihood",
    "Maker": "core.registry",
    "Metric": "core.modality",
    "Metrics": "core.modality",
    "Modality": "core.modality",
    "names": "core.registry",
    "Node": "core.runs",
    "Noise": "core.latents",
    "Normaliser": "core.latents",
    "Objective": "core.objectives",
    "Posterior": "core.latents",
    "Outputs": "core.modality",
    "Preconditioned": "core.denoisers",
    "Prediction": "core.process",
    "register": "core.registry",
    "Run": "core.runs",
    "Sampler": "core.generators",
    "Schedule": "core.process",
    "Sizes": "core.modality",
    "solve": "core.solvers",
    "Solver": "core.solvers",
    "Stage": "core.training.stages.base",
    "StageSettings": "core.training.settings",
    "Source": "core.runs.sources",
    "Start": "core.generators",
    "Step": "core.solvers",
    "StoredNoise": "core.runs",
    "Times": "core.process",
    "Training": "core.training.stages.base",
    "Tuning": "core.runs.sources",
    "Weighting": "core.objectives",
    "Wrapper": "core.denoisers",
}

__all__ = [*_PUBLIC, "testing"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "testing":
        return importlib.import_module("anylatent.testing")
    if name not in _PUBLIC:
        raise AttributeError(f"anylatent has no '{name}'; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"anylatent.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
