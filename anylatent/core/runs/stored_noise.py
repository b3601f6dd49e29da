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
from anylatent.core.runs.config import SamplingConfig, read, read_value
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
        found = {name: parts[name][:, : x.shape[1]].float() for name, x in blank.parts.items()}
        settings = read(SamplingConfig, told["settings"], str(path))
        return cls(spec.wrap(found, blank.masks), settings, *_told_of(told, blank.batch, path))

    @staticmethod
    def told(path: Path) -> tuple[SamplingConfig, int]:
        """How the noise of a file was found, and of how many samples it is."""
        tensors, told = _read(path)
        count = next(len(x) for name, x in tensors.items() if name != "lengths" and x.ndim)
        return read(SamplingConfig, told["settings"], str(path)), count


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"noise={path}: there is no such file; 'anylatent invert' writes one")
    tensors, metadata = load_weights(path)
    try:
        told = json.loads(metadata[KEY])
        wanted = {field.name for field in fields(SamplingConfig)}
        fields_of = [x for name, x in tensors.items() if name != "lengths" and x.ndim]
        known = wanted <= set(told["settings"]) and len(fields_of) > 0
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise UserError(f"noise={path} holds no noise: 'anylatent invert' writes such files")
    return tensors, told


def _told_of(
    told: Mapping[str, Any], batch: int, path: Path
) -> tuple[dict[str, list[Any]], Sequence[int]]:
    """The conditions and the places of so many samples. Raises UserError for others."""
    columns = read_value(dict[str, list[Any]], told.get("columns", {}), f"{path}: columns")
    items = read_value(list[int], told.get("items", ()), f"{path}: items")
    for name, values in columns.items():
        if len(values) != batch:
            raise UserError(
                f"{path}: the condition {name} has {len(values)} values for noise of {batch} "
                "samples: the file is damaged. Make it again by 'anylatent invert'"
            )
    return columns, items


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
        if not x.is_floating_point():
            return f"its field {name} has numbers of type {x.dtype}, which are no floats"
        if not bool(torch.isfinite(x).all()):
            return f"its field {name} has numbers that are not finite"
    counts = {len(x) for x in parts.values()}
    if len(counts) > 1 or counts == {0}:
        return f"its fields are of {' and '.join(map(str, sorted(counts)))} samples"
    return "" if lengths is None else _unfit_lengths(lengths, parts, spec)


def _unfit_lengths(lengths: Tensor, parts: Mapping[str, Tensor], spec: LatentSpec) -> str:
    """What is wrong with the lengths of samples; "" where nothing is."""
    count = len(next(iter(parts.values())))
    if lengths.dtype != torch.int64 or lengths.shape != (count,) or int(lengths.min()) < 1:
        kind = f"{lengths.dtype} of shape {tuple(lengths.shape)}"
        return f"its lengths are no {count} positive integers but {kind}"
    for name, known in spec.fields.items():
        if known.variable and int(lengths.max()) > parts[name].shape[1]:
            return f"its field {name} is shorter than its lengths say"
    return ""
