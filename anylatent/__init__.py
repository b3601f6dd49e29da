"""anylatent: one latent diffusion core for every modality.

The public names are loaded on first use: importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Autoencoder": "core.autoencoder",
    "Backbone": "core.backbone",
    "Cascade": "core.generators",
    "Condition": "core.condition",
    "ConditionSpec": "core.condition",
    "Conditioner": "core.modality",
    "Data": "core.modality",
    "Denoiser": "core.denoiser",
    "Denoising": "core.objectives",
    "Diffusion": "core.generators",
    "Field": "core.latent",
    "Generator": "core.generators",
    "Grid": "core.grids",
    "Latent": "core.latent",
    "LatentSpec": "core.latent",
    "Likelihood": "core.likelihood",
    "Metrics": "core.modality",
    "Modality": "core.modality",
    "Noise": "core.noise",
    "Normaliser": "core.normaliser",
    "Objective": "core.objectives",
    "Posterior": "core.autoencoder",
    "Preconditioned": "core.denoiser",
    "Prediction": "core.predictions",
    "Run": "core.run",
    "Schedule": "core.schedules",
    "Solver": "core.solvers",
    "Step": "core.solvers",
    "StoredNoise": "core.stored_noise",
    "Times": "core.times",
    "Weighting": "core.weightings",
    "combine": "core.latent",
    "get": "core.registry",
    "load": "core.run",
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
