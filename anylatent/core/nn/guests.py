"""Guests: one way to put something into a network that is there already.

Temporal layers, a control's copy, grounding tokens, attention across frames, attention maps and
features that are read on the way are guests: networks, or none, that are asked at the sites of
another. A backbone with its guest is a backbone again, `Hosting`, so that guests nest; the network
within knows nothing of it.
"""

from __future__ import annotations

from torch import Tensor, nn

from anylatent.core.latents import Condition, Latent
from anylatent.core.nn.backbone import Backbone
from anylatent.core.nn.sites import Attend, Site


class Guest(nn.Module):
    """What is asked at the sites of a network; by default it changes nothing.

    `satisfied` may become True in a call: the network then ends early, and what it returns is of no
    use. A guest that keeps values of one call keeps them in what `begin` returns.
    """

    satisfied: bool = False

    def begin(self, x: Latent, c_noise: Tensor, cond: Condition | None) -> Guest:
        """The guest of one call of a backbone, before its first site: itself, or another object
        that has read the input (a control's copy has run, boxes have become tokens)."""
        return self

    def after(self, site: Site, h: Tensor, embedding: Tensor | None, mask: Tensor | None) -> Tensor:
        """What goes on from a site where h passes.

        `embedding` (B, E) steers the network, (B, N, E) where tokens have noise levels of their
        own, None where nothing does; `mask` (B, N) is True where tokens are no padding, None on
        maps and where nothing is padded. What is written to the padding leaves no trace.
        """
        return h

    def attend(
        self,
        site: Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        attend: Attend,
    ) -> Tensor:
        """What queries read at a site that attends; `attend` is how they do so without it."""
        return attend(q, k, v, mask)


class Both(Guest):
    """Two guests of one network: the inner one is asked first."""

    def __init__(self, inner: Guest, outer: Guest) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer

    @property
    def satisfied(self) -> bool:  # type: ignore[override]
        return self.inner.satisfied and self.outer.satisfied

    def after(self, site: Site, h: Tensor, embedding: Tensor | None, mask: Tensor | None) -> Tensor:
        return self.outer.after(site, self.inner.after(site, h, embedding, mask), embedding, mask)

    def attend(
        self,
        site: Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        attend: Attend,
    ) -> Tensor:
        def within(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            return self.inner.attend(site, q, k, v, mask, attend)

        return self.outer.attend(site, q, k, v, mask, within)


class Hosting(Backbone):
    """A backbone with its guest. It nests: a guest of the outer one comes after the inner one's."""

    def __init__(self, backbone: Backbone, guest: Guest) -> None:
        super().__init__()
        if not backbone.sites:
            raise ValueError(f"{type(backbone).__name__} has no sites where a guest could be put")
        self.backbone, self.guest = backbone, guest
        self.spec, self.conditions = backbone.spec, backbone.conditions
        self.sites, self.apart = backbone.sites, backbone.apart
        self.per_entry = backbone.per_entry

    def forward(
        self,
        x: Latent,
        c_noise: Tensor,
        cond: Condition | None = None,
        guest: Guest | None = None,
    ) -> Latent:
        own = self.guest.begin(x, c_noise, cond)
        found: Latent = self.backbone(x, c_noise, cond, own if guest is None else Both(own, guest))
        return found
