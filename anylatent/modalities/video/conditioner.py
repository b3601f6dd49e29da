"""What clips are drawn under beside captions and classes: a first frame, a rate, a strength of
motion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from anylatent.core.latents import (
    Condition,
    ConditionSpec,
    Field,
    Latent,
    LatentSpec,
    Noise,
    Value,
)
from anylatent.core.modality import Conditioner, LatentEncoder, column_entries, given
from anylatent.core.nn.embedding import SinusoidalFeatures
from anylatent.core.support.files import UserError
from anylatent.modalities.video.reading import picture_of

KINDS = ("first", "motion", "rate")
SIDE, LEVELS = 4, 16
"""Of the small picture in the vector of a first frame; features of its noise level."""


class ClipConditioner(Conditioner):
    """What `about` reads (a class, a caption), and what is named in `also`, each dropped apart:

    `first`: a picture that the clip begins with, as a latent laid over every frame, and in small as
    a vector (2311.15127). In training it has noise of up to `noise` times its deviation, whose
    level is told (2311.10709), so that what is made may differ from it; there is none in sampling.
    `motion`: the mean length of the optical flow, in pixels a frame at 64 px, as the data's facts
    measure it. `rate`: frames a second.
    """

    def __init__(
        self,
        autoencoder: LatentEncoder | None = None,
        shape: tuple[int, ...] = (),
        motion: Sequence[float] = (),
        about: Conditioner | None = None,
        *,
        also: tuple[str, ...] = (),
        noise: float = 0.5,
    ) -> None:
        super().__init__()
        unknown = [name for name in also if name not in KINDS]
        if unknown or noise < 0:
            raise UserError(
                f"conditioner.also may name {', '.join(KINDS)} and noise be 0 or more, got "
                f"{list(also)} and noise={noise:g}"
            )
        self.also, self.noise, self.shape = also, noise, tuple(shape)
        self.about, self.autoencoder = about, autoencoder
        self.usual = float(motion[len(motion) // 2]) if motion else 1.0
        if "motion" in also and not self.usual > 0:
            raise UserError("these data have no motion measured: give data.motion=true")
        self.levels = SinusoidalFeatures(LEVELS)
        self.spec = self._spec()

    def _spec(self) -> ConditionSpec:
        inner = ConditionSpec() if self.about is None else self.about.spec
        known = [*inner.scalars, *(name for name in self.also if name != "first")]
        opening = [*inner.opening, *(name for name in self.also if name == "first")]
        twice = [name for name in inner.names if name in self.also]
        if twice:
            raise UserError(f"conditioner.about reads {', '.join(twice)} too: leave it out of also")
        latents, vectors = dict(inner.latents), dict(inner.vectors)
        if "first" in self.also:
            if self.autoencoder is None:
                raise UserError("a first frame is a latent, and there is no autoencoder for it")
            field = next(iter(self.autoencoder.spec.fields.values()))
            latents["first"] = Field(field.rest, channels=0)
            vectors["first"] = Field((field.rest[0] * SIDE**2 + LEVELS,))
        return replace(inner, scalars=known, latents=latents, vectors=vectors, opening=opening)

    @property
    def columns(self) -> Sequence[str]:
        """Those of `about`, and the names in `also`."""
        return [*([] if self.about is None else self.about.columns), *self.also]

    @property
    def shared(self) -> Sequence[str]:
        """Those of `about`: what a first frame shows as well."""
        return [] if self.about is None else self.about.shared

    @property
    def files(self) -> Sequence[Any]:
        return [] if self.about is None else self.about.files

    def forward(self, columns: Mapping[str, Any]) -> Condition:
        """`first` is clips (B, T, C, H, W), of which a window's first frame counts, or pictures;
        `motion` that of each frame, (B, T), or a number for each sample."""
        unknown = [name for name in columns if name not in self.columns]
        if unknown:
            raise ValueError(f"no condition {', '.join(unknown)}: there are {self.columns}")
        own = {name: value for name, value in columns.items() if name not in self.also}
        found = Condition() if self.about is None or not own else self.about(own)
        values, keep = dict(found.values), dict(found.keep)
        for name in self.also:
            if name in columns:
                values[name], keep[name] = getattr(self, f"_{name}")(columns)
        return Condition(values, keep)

    def vary(self, cond: Condition, noise: Noise) -> Condition:
        found = cond if self.about is None else self.about.vary(cond, noise)
        values = dict(found.values)
        if isinstance(first := values.get("first"), Latent) and "rows" in first.parts:
            levels = self.noise * noise.uniform().to(first.device, torch.float32)
            drawn = noise.normal(*first["rows"].shape[2:]).to(first.device)
            values["first"] = self._told(first["rows"][:, 0], levels, drawn)
        return Condition(values, found.keep, found.always)

    def learned(self, cond: Condition) -> Condition:
        found = cond if self.about is None else self.about.learned(cond)
        values = dict(found.values)
        if isinstance(first := values.get("first"), Latent) and "rows" in first.parts:
            picture = first["rows"][:, 0]
            values["first"] = self._told(picture, picture.new_zeros(len(picture)), picture * 0)
        if isinstance(motion := values.get("motion"), Latent):
            values["motion"] = ((_mean(motion) + 0.1) / (self.usual + 0.1)).log()
        return Condition(values, found.keep, found.always)

    # ---- what is computed once ----------------------------------------------------------------
    def _first(self, columns: Mapping[str, Any]) -> tuple[Value, Tensor]:
        """The latents of all frames, which are cut as the clips are."""
        column = columns["first"]
        if isinstance(column, Tensor) and column.ndim == 5:
            video, mask = column, torch.ones(column.shape[:2], dtype=torch.bool)
            keep = torch.ones(len(column), dtype=torch.bool, device=column.device)
        else:
            entries = column_entries({"first": list(column)}, "first") or []
            empty = torch.zeros(self.shape)
            pictures = [empty if e is None else picture_of(e, self.shape) for e in entries]
            video, keep = torch.stack(pictures)[:, None], given(entries)
            mask = torch.ones(len(entries), 1, dtype=torch.bool)
        assert self.autoencoder is not None
        frames = torch.full((len(video),), video.shape[1])
        rows = self.autoencoder({"video": video, "mask": mask.to(video.device), "frames": frames})
        ((_, z),) = rows.parts.items()
        spec = LatentSpec({"rows": Field((None, *z.shape[2:]), channels=1)})
        mask = mask.to(z.device)
        return Latent({"rows": z}, {"rows": mask}, spec), keep.to(z.device)

    def _motion(self, columns: Mapping[str, Any]) -> tuple[Value, Tensor]:
        """The strength at each frame; what is told is the log of its mean over the data's median,
        both a tenth of a pixel higher."""
        column = columns["motion"]
        if isinstance(column, Tensor) and column.ndim == 2:
            moved, keep = column.float(), torch.ones(len(column), dtype=torch.bool)
        else:
            entries = _numbers("motion", column, 0.0)
            moved = torch.tensor([[0.0 if entry is None else entry] for entry in entries])
            keep = given(entries)
        mask = torch.ones(moved.shape, dtype=torch.bool, device=moved.device)
        spec = LatentSpec({"pace": Field((None, 1))})
        return Latent({"pace": moved[..., None]}, {"pace": mask}, spec), keep

    def _rate(self, columns: Mapping[str, Any]) -> tuple[Value, Tensor]:
        """In octaves above 8 frames a second."""
        entries = _numbers("rate", columns["rate"], 1e-3)
        told = [0.0 if entry is None else math.log2(entry / 8) for entry in entries]
        return torch.tensor(told), given(entries)

    def _told(self, picture: Tensor, levels: Tensor, drawn: Tensor) -> Latent:
        """A first frame with noise of a level (B,), relative to its deviation, as both latents."""
        spread = picture.flatten(1).std(1)
        noisy = picture + (levels * spread)[:, None, None, None] * drawn
        small = adaptive_avg_pool2d(noisy, SIDE).flatten(1)
        vector = torch.cat((small, self.levels(4 * levels).to(small)), 1)
        fields = {
            "grid": Field(tuple(noisy.shape[1:]), channels=0),
            "vector": Field(tuple(vector.shape[1:])),
        }
        return Latent({"grid": noisy, "vector": vector}, {}, LatentSpec(fields))


def _mean(rows: Latent) -> Tensor:
    """Over the valid rows of a latent (B, T, 1)."""
    mask = rows.masks["pace"]
    return torch.where(mask, rows["pace"][..., 0], 0).sum(1) / mask.sum(1).clamp(min=1)


def _numbers(name: str, column: Any, least: float) -> list[Any]:
    """A finite number of `least` or more for each sample, or None; of those of frames the mean."""
    entries = column_entries({name: column}, name) or []
    entries = [float(e.float().mean()) if isinstance(e, Tensor) else e for e in entries]
    for entry in entries:
        number = isinstance(entry, int | float) and not isinstance(entry, bool)
        if entry is not None and (not number or not least <= entry < math.inf):
            raise ValueError(f"cond.{name}={entry!r}: a number of {least:g} or more is wanted")
    return entries
