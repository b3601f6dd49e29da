"""A residual perceptron: for latents of any fields of fixed size, of any modality."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import anylatent as al


class Perceptron(al.Backbone):
    """`blocks` residual layers of `width` units over all numbers of a latent at once.

    Classes, scalars, the mean of tokens and latents of fixed size are added to the features of the
    noise level; a key that is dropped has a learned vector instead. The output is zero at
    initialisation.
    """

    def __init__(
        self,
        spec: al.LatentSpec | None = None,
        conditions: al.ConditionSpec | None = None,
        *,
        width: int = 128,
        blocks: int = 3,
    ) -> None:
        super().__init__()
        self.spec = al.LatentSpec({"z": al.Field((2, 8))}) if spec is None else spec
        self.conditions = al.ConditionSpec() if conditions is None else conditions
        if any(field.variable for field in self.spec.fields.values()) or self.conditions.maps:
            raise ValueError(
                f"the perceptron takes fields of fixed size and no maps, got {self.spec} and the "
                f"maps {list(self.conditions.maps)}: choose another backbone"
            )
        variable = [k for k, field in self.conditions.latents.items() if field.variable]
        if variable:
            raise ValueError(f"the perceptron reads no latent of variable length: '{variable[0]}'")
        wide = [k for k, field in self.conditions.vectors.items() if len(field.shape) > 1]
        if wide:
            raise ValueError(f"the perceptron reads one vector a sample: '{wide[0]}' has more")
        size = sum(x[0].numel() for x in self.spec.blank(1).parts.values())
        tables = {k: nn.Embedding(n, width) for k, n in self.conditions.classes.items()}
        tables |= {k: nn.Linear(n, width) for k, n in self.conditions.tokens.items()}
        tables |= {k: nn.Linear(1, width) for k in self.conditions.scalars}
        given = self.conditions.latents
        tables |= {k: nn.Linear(math.prod(field.shape), width) for k, field in given.items()}
        vectors = self.conditions.vectors
        tables |= {f"{k} vector": nn.Linear(f.shape[0], width) for k, f in vectors.items()}
        self.tables = nn.ModuleDict(tables)
        self.nulls = nn.ParameterDict({k: torch.randn(width) * 0.1 for k in tables})
        self.first, self.noise = nn.Linear(size, width), nn.Linear(16, width)
        self.layers = nn.ModuleList(_layer(width) for _ in range(blocks))
        self.last = nn.Linear(width, size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: al.Latent, c_noise: Tensor, cond: al.Condition | None = None) -> al.Latent:
        flat = torch.cat([part.flatten(1) for part in x.parts.values()], 1)
        level = self.levels(c_noise, x)
        known = self.noise(_waves(level).to(flat.dtype)) + self._embed(cond, flat)
        h = self.first(flat) + known
        for layer in self.layers:
            h = h + layer(h + known)
        pieces = self.last(h).split([part[0].numel() for part in x.parts.values()], 1)
        shaped = zip(x.parts.items(), pieces, strict=True)
        return x.replace(**{name: piece.reshape(part.shape) for (name, part), piece in shaped})

    def _embed(self, cond: al.Condition | None, like: Tensor) -> Tensor:
        total = like.new_zeros(len(like), self.first.out_features)
        for name, null in self.nulls.items():
            key = name.removesuffix(" vector")  # a value may have tokens and a vector
            if cond is None or key not in cond.values:
                total = total + null
                continue
            vector = self._vector(name, cond.values[key], like.dtype)
            total = total + torch.where(cond.keep[key][:, None], vector, null)
        return total

    def _vector(self, name: str, value: Tensor | al.Latent, dtype: torch.dtype) -> Tensor:
        table = self.tables[name]
        if name.endswith(" vector"):
            value = value["vector"] if isinstance(value, al.Latent) else value
            value = value.to(dtype)
        elif name in self.conditions.latents and isinstance(value, al.Latent):
            (value,) = (x.flatten(1).to(dtype) for x in value.parts.values())
        elif isinstance(value, al.Latent):
            mask = value.masks["tokens"][..., None]
            states = torch.where(mask, value["tokens"], 0).to(dtype)
            value = states.sum(1) / mask.sum(1).clamp(min=1)
        elif name in self.conditions.scalars:
            value = value[:, None].to(dtype)
        vector: Tensor = table(value)
        return vector


def _layer(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU())


def _waves(level: Tensor) -> Tensor:
    """Features (B, 16) of the noise level."""
    periods = torch.logspace(math.log10(40), math.log10(0.4), 8, device=level.device)
    angle = level[:, None].double() * 2 * math.pi / periods
    return torch.cat((angle.cos(), angle.sin()), 1)
