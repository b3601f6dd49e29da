"""Parts of samples along their entries, as samples of their own: of latents, conditions, and what
a sampler knows of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from anylatent.core.generators.sampler import Sampler
from anylatent.core.latents import Condition, ConditionSpec, Field, Latent, Value, cut


class Part:
    """Some entries of some samples, at `places` (R, W) of the samples `rows` (R,), -1 for none."""

    def __init__(self, rows: Tensor, places: Tensor, conditions: ConditionSpec) -> None:
        self.rows, self.places, self.conditions = rows, places, conditions
        self.whole = bool((places >= 0).all())

    def latent(self, x: Latent) -> Latent:
        found = cut(x, self.rows.to(x.device), self.places.to(x.device))
        return found.unpadded() if self.whole else found

    def mask(self, x: Tensor) -> Tensor:
        """Of a mask (B, T, ...)."""
        rows, places = self.rows.to(x.device)[:, None], self.places.to(x.device)
        found = x[rows, places.clamp(min=0)]
        return found & (places >= 0).reshape(*places.shape, *[1] * (found.ndim - 2))

    def condition(self, cond: Condition | None) -> Condition | None:
        """What is told of them: of what is told of each entry, that of theirs; of how a sample
        begins, nothing where they begin elsewhere."""
        if cond is None:
            return None
        values = {name: self._value(name, value) for name, value in cond.values.items()}
        starts = self.places[:, 0] == 0
        keep = {name: kept[self.rows.to(kept.device)] for name, kept in cond.keep.items()}
        for name in self.conditions.opening:
            if name in keep:
                keep[name] = keep[name] & starts.to(keep[name].device)
        return Condition(values, keep, cond.always)

    def sampler(self, sampler: Sampler) -> Sampler:
        """A sampler of such samples as one of these parts of them."""
        start, known = sampler.start, sampler.known
        if start is not None:
            x, x0 = (None if z is None else self.latent(z) for z in (start.x, start.x0))
            start = replace(start, x=x, x0=x0, t=self._time(start.t))
        if known is not None:
            given = {name: self.mask(mask) for name, mask in known.given.items()}
            known = replace(known, latents=self.latent(known.latents), given=given)
        return replace(sampler, start=start, known=known)

    def put(self, whole: Latent, part: Latent, kept: Tensor) -> Latent:
        """The samples with these entries of them, where `kept` (R, W)."""
        where = (kept & (self.places >= 0)).nonzero()
        rows, places = self.rows[where[:, 0]], self.places[where[:, 0], where[:, 1]]
        parts = {name: x.clone() for name, x in whole.parts.items()}
        for name, x in part.parts.items():
            own = where.to(x.device)
            parts[name][rows.to(x.device), places.to(x.device)] = x[own[:, 0], own[:, 1]]
        return Latent(parts, whole.masks, whole.spec)

    def _value(self, name: str, value: Value) -> Value:
        vector, field = (x.get(name) for x in (self.conditions.vectors, self.conditions.latents))
        rows = self.rows.to(value.device)
        if isinstance(value, Latent):
            each = {"vector": _along(vector, 2)}
            keys = [key for key in value.parts if each.get(key, _along(field, 4))]
            chosen = value.select(rows)
            if not keys:
                return chosen
            own = cut(value.take(keys), rows, self.places.to(value.device))
            parts, masks = {**chosen.parts, **own.parts}, {**chosen.masks, **own.masks}
            return Latent(parts, masks, value.spec)
        if _along(vector, 2):
            return value[rows[:, None], self.places.to(value.device).clamp(min=0)]
        return value[rows]

    def _time(self, t: Any) -> Any:
        if not isinstance(t, Tensor) or t.ndim == 0:
            return t
        rows = t[self.rows.to(t.device)]
        return rows if t.ndim == 1 else rows.gather(1, self.places.to(t.device).clamp(min=0))


def _along(field: Field | None, axes: int) -> bool:
    """Whether a condition's field has something for each entry of the samples."""
    return field is not None and field.variable and len(field.shape) == axes
