"""anylatent: one latent diffusion core for every modality.

The public names are loaded on first use: importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Autoencoder": "core.autoencoders",
    "Backbone": "core.nn.backbone",
    "Cascade": "core.generators",
    "Condition": "core.latents",
    "ConditionSpec": "core.latents",
    "Conditioner": "core.modality",
    "Data": "core.modality",
    "Denoiser": "core.denoisers",
    "Denoising": "core.objectives",
    "Diffusion": "core.generators",
    "Field": "core.latents",
    "Generator": "core.generators",
    "Grid": "core.process",
    "Latent": "core.latents",
    "LatentSpec": "core.latents",
    "Likelihood": "core.likelihood",
    "Metrics": "core.modality",
    "Modality": "core.modality",
    "Noise": "core.latents",
    "Normaliser": "core.latents",
    "Objective": "core.objectives",
    "Posterior": "core.latents",
    "Preconditioned": "core.denoisers",
    "Prediction": "core.process",
    "Run": "core.runs",
    "Schedule": "core.process",
    "Solver": "core.solvers",
    "Start": "core.generators",
    "Step": "core.solvers",
    "StoredNoise": "core.runs",
    "Times": "core.process",
    "Weighting": "core.objectives",
    "combine": "core.latents",
    "get": "core.registry",
    "load": "core.runs",
    "log_likelihood": "core.likelihood",
    "names": "core.registry",
    "register": "core.registry",
    "invert": "core.solvers",
    "solve": "core.solvers",
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
