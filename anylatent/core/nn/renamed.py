"""One network for latents of the same shapes under different names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from anylatent.core.latents import Condition, ConditionSpec, Latent, LatentSpec
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.guests import Guest


class Renamed(Backbone):
    """A backbone whose weights are another's, for which fields and conditions have other names.

    It has no parameters of its own: those of `backbone` belong to whoever made that. Names go by
    order. Raises ValueError, naming what differs, where specs or conditions are not of the same
    shapes. `output` is the spec of what it returns, by default that of the input.
    """

    def __init__(
        self,
        backbone: Backbone,
        spec: LatentSpec,
        conditions: ConditionSpec,
        output: LatentSpec | None = None,
    ) -> None:
        super().__init__()
        self._lent = (backbone,)  # in a tuple, so that its weights are counted and kept once
        self.spec, self.conditions, self.output = spec, conditions, output or spec
        self.fields = _pairs("fields", spec.fields, backbone.spec.fields)
        own, theirs = conditions.latents, backbone.conditions.latents
        self.told = _pairs("latents that it is told of", own, theirs)
        self.sites, self.per_entry = backbone.sites, backbone.per_entry

    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        (backbone,) = self._lent
        parts = {self.fields[name]: value for name, value in x.parts.items()}
        masks = {self.fields[name]: mask for name, mask in x.masks.items()}
        renamed = Latent(parts, masks, backbone.spec)
        told = () if guest is None else (guest,)
        found = backbone(renamed, c_noise, cond and self._renamed(cond), *told)
        back = {name: found[other] for name, other in self.fields.items()}
        return Latent(back, x.masks, self.output)

    def _renamed(self, cond: Condition) -> Condition:
        def to(name: str) -> str:
            return self.told.get(name, name)

        return Condition(
            {to(name): value for name, value in cond.values.items()},
            {to(name): mask for name, mask in cond.keep.items()},
            frozenset(map(to, cond.always)),
        )


def _pairs(what: str, own: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, str]:
    """The other's name for each of ours."""
    if list(own.values()) != list(theirs.values()):
        shown = [", ".join(f"{k} {v}" for k, v in some.items()) or "none" for some in (own, theirs)]
        raise ValueError(f"its {what} are {shown[0]}, and those of the other {shown[1]}")
    return dict(zip(own, theirs, strict=True))
