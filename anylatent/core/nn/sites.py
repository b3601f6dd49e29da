"""Sites: the places in a network where something of another may be put.

A network lists its `sites` in the order in which a call passes them. A `Visit` walks along them
with a guest: at each site the guest is given what passes there and returns what goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from torch import Tensor

if TYPE_CHECKING:
    from anylatent.core.nn.guests import Guest

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Queries (B, heads, N, d), keys and values (B, heads, L, d), the mask (B, L) of the keys or None,
to what the queries read, (B, heads, N, d)."""


@dataclass(frozen=True)
class Site:
    """A place in a network: what passes there, and whether entries attend to one another before.

    `layout` "map": (B, width, *axes) with one axis or more, such as (B, width, H, W); "tokens":
    (B, N, width). `embedding` is the width of the vector (B, embedding) that steers the network, 0
    where there is none.
    """

    name: str
    width: int
    layout: Literal["map", "tokens"]
    attends: bool = False
    embedding: int = 0


class Visit:
    """One call of a network, along its sites, with a guest."""

    def __init__(self, guest: Guest, sites: Sequence[Site], embedding: Tensor | None) -> None:
        self.guest, self.sites, self.embedding = guest, sites, embedding
        self.place = 0

    def __call__(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """What goes on from the next site, where h passes; `mask` (B, N): True where tokens are no
        padding."""
        site, self.place = self.sites[self.place], self.place + 1
        return self.guest.after(site, h, self.embedding, mask)

    def attending(self, attend: Attend) -> Attend:
        """How entries attend before the next site, in place of `attend`."""
        site, guest = self.sites[self.place], self.guest

        def by(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            return guest.attend(site, q, k, v, mask, attend)

        return by

    @property
    def over(self) -> bool:
        """Whether the guest has all that it came for, and what the network returns is not read."""
        return self.guest.satisfied


def visiting(
    guest: Guest | None, sites: Sequence[Site], embedding: Tensor | None = None
) -> Visit | None:
    """A walk along the sites; None without a guest, which costs nothing."""
    return None if guest is None else Visit(guest, sites, embedding)
