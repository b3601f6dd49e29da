"""The contract of sites: what a guest is shown, in which order, and what it can't do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from anylatent.core.latents import Field, Latent
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.sites import Attend, Site
from anylatent.core.testing.examples import distance


class Sited(Protocol):
    """A network with sites, such as a backbone or a decoder."""

    @property
    def sites(self) -> Sequence[Site]: ...


def _passing(network: Sited, x: Latent) -> int:
    """How many samples pass its sites: those of x, or each entry of them."""
    return x.batch * (x.entries if getattr(network, "apart", False) else 1)


class Recorder(Guest):
    """Changes nothing, and writes down where it was asked and what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Site, Tensor, Tensor | None]] = []
        self.attended: list[Site] = []

    def after(self, site: Site, h: Tensor, embedding: Tensor | None, mask: Tensor | None) -> Tensor:
        wide = 0 if embedding is None else embedding.shape[-1]
        assert wide == site.embedding, f"{site.name}: embedding of {wide}, said {site.embedding}"
        self.seen.append((site, h, mask))
        return h

    def attend(
        self, site: Site, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, attend: Attend
    ) -> Tensor:
        self.attended.append(site)
        return attend(q, k, v, mask)


class Scribbler(Guest):
    """Writes numbers to the padding, wherever there is any."""

    def after(self, site: Site, h: Tensor, embedding: Tensor | None, mask: Tensor | None) -> Tensor:
        return h if mask is None else torch.where(mask[..., None], h, 1e3)


class Early(Guest):
    """Has seen enough at its first site."""

    def after(self, site: Site, h: Tensor, embedding: Tensor | None, mask: Tensor | None) -> Tensor:
        self.satisfied = True
        return h


class Doubler(Guest):
    """Leaves a multiple of what passes at one site."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def after(self, site: Site, h: Tensor, embedding: Tensor | None, mask: Tensor | None) -> Tensor:
        return 2.0 * h if site.name == self.name else h


@torch.no_grad()
def check_sites(network: Sited, call: Callable[[Guest | None], Latent], x: Latent) -> None:
    """`call(guest)` runs a network whose weights are awake on x.

    An idle guest changes no bit; every site is passed once, in order, with the shape that it says;
    those that attend, and no others, ask how; what is written to padding leaves no trace; each site
    reaches the output; a guest that has enough ends the call without harm. Networks of centred
    fields, which turn with their points, show only what no rotation changes.
    """
    if not network.sites:
        return
    name, plain, guest = type(network).__name__, call(None), Recorder()
    assert distance(call(guest), plain) == 0, f"{name}: an idle guest changes the output"
    passed = [site.name for site, _, _ in guest.seen]
    assert passed == [site.name for site in network.sites], f"{name}: passed {passed}"
    assert len(set(passed)) == len(passed), f"{name}: two sites of one name among {passed}"
    for site, h, mask in guest.seen:
        width = h.shape[1 if site.layout == "map" else -1]
        where = f"{name}, site {site.name}: shape {tuple(h.shape)}"
        assert h.shape[0] == _passing(network, x) and width == site.width, f"{where}, said {site}"
        if site.layout == "map":
            assert h.ndim > 2 and mask is None, f"{where}: no map (B, width, *axes) without a mask"
            continue
        assert h.ndim == 3, where
        assert mask is None or mask.shape == h.shape[:2], f"{where}, mask {tuple(mask.shape)}"
    asked = [site for site in network.sites if site.attends]
    assert guest.attended == asked, f"{name}: attends at {guest.attended}, said {asked}"
    assert distance(call(Scribbler()), plain) == 0, f"{name}: what is in the padding gets out"
    for site in network.sites:
        assert distance(call(Doubler(site.name)), plain) > 0, f"{name}: {site.name} reaches nothing"
    call(Early())


@torch.no_grad()
def check_invariance(
    network: Sited, call: Callable[[Latent, Guest], Latent], x: Latent, turn: Tensor
) -> None:
    """What guests are shown stays as it is where the points of centred fields are turned."""
    turned = {n: x[n] @ turn.to(x[n]) if f.centred else x[n] for n, f in _fields(x).items()}
    first, second = Recorder(), Recorder()
    call(x, first)
    call(x.replace(**turned), second)
    for (site, h, _), (_, again, _) in zip(first.seen, second.seen, strict=True):
        gap = float((h - again).abs().max()) / max(1.0, float(h.abs().max()))
        assert gap < 1e-4, f"{type(network).__name__}: site {site.name} turns by {gap:.2g}"


def _fields(x: Latent) -> dict[str, Field]:
    return dict(x.spec.fields)
