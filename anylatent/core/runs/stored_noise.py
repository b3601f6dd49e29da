"""Noise that is given instead of drawn, and the file that keeps it.

    noise.FIELD   (B, ...) float32: x_1/sigma(1), standard normal where the model is perfect
    lengths       (B,) int64, where samples have lengths of their own; zero beyond them

Its metadata, JSON under `inversion`, hold what leads from it back to the data: solver, grid, steps,
guidance and conditions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Latent, LatentSpec
from anylatent.core.runs.config import SamplingConfig, read
from anylatent.core.support.files import UserError, load_weights, save_weights

KEY = "inversion"


@dataclass(frozen=True)
class StoredNoise:
    """Noise of B samples, and how it was found.

    `settings` is the sampler that leads back; `columns` the conditions, a list of B values by
    name; `items` the places of the samples in the data.
    """

    noise: Latent
    settings: SamplingConfig
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    items: Sequence[int] = ()

    def save(self, path: Path) -> None:
        tensors = {f"noise.{name}": x.float() for name, x in self.noise.parts.items()}
        for name in list(self.noise.masks)[:1]:  # all fields of variable length share it
            tensors["lengths"] = self.noise.lengths(name)
        told = {
            "settings": asdict(self.settings),
            "columns": {name: list(values) for name, values in self.columns.items()},
            "items": list(self.items),
        }
        save_weights(path, tensors, {KEY: json.dumps(told)})

    @classmethod
    def load(cls, path: Path, spec: LatentSpec) -> StoredNoise:
        """Raises UserError for a file of something else, and for noise of other latents."""
        tensors, told = _read(path)
        parts = {k.removeprefix("noise."): x for k, x in tensors.items() if k != "lengths"}
        lengths = tensors.get("lengths")
        problem = _unfit(parts, lengths, spec)
        if problem:
            raise UserError(
                f"noise={path} does not fit this run, whose latents are {spec}: {problem}. Invert "
                "data with this run: anylatent invert run=..."
            )
        blank = spec.blank(len(next(iter(parts.values()))), lengths)
        found = {name: parts[name][:, : x.shape[1]] for name, x in blank.parts.items()}
        settings = read(SamplingConfig, told["settings"], str(path))
        columns, items = told.get("columns", {}), told.get("items", ())
        return cls(spec.wrap(found, blank.masks), settings, columns, items)


def stored_config(path: Path) -> tuple[SamplingConfig, int]:
    """How the noise of a file was found, and of how many samples it is."""
    tensors, told = _read(path)
    return read(SamplingConfig, told["settings"], str(path)), len(next(iter(tensors.values())))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"noise={path}: there is no such file; 'anylatent invert' writes one")
    tensors, metadata = load_weights(path)
    try:
        told = json.loads(metadata[KEY])
        wanted = {field.name for field in fields(SamplingConfig)}
        known = wanted <= set(told["settings"]) and any(n != "lengths" for n in tensors)
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise UserError(f"noise={path} holds no noise: 'anylatent invert' writes such files")
    return tensors, told


def _unfit(parts: Mapping[str, Tensor], lengths: Tensor | None, spec: LatentSpec) -> str:
    """What of the tensors is not of this space; "" where all of it is."""
    if set(parts) != set(spec.fields):
        return f"it has the fields {', '.join(parts)}"
    if (lengths is not None) != any(known.variable for known in spec.fields.values()):
        return "it has lengths" if lengths is not None else "it has no lengths"
    for name, known in spec.fields.items():
        x = parts[name]
        wanted = (*known.shape[:1], *known.rest)
        if x.ndim != len(wanted) + 1 or any(
            size not in (None, own) for size, own in zip(wanted, x.shape[1:], strict=True)
        ):
            return f"its field {name} has the shape {tuple(x.shape[1:])}"
        if not bool(torch.isfinite(x).all()):
            return f"its field {name} has numbers that are not finite"
        if lengths is not None and known.variable and int(lengths.max()) > x.shape[1]:
            return f"its field {name} is shorter than its lengths say"
    return ""
