"""Guests: what is put into a network at its sites, and what the network is without them."""

import copy
import math

import pytest
import torch
from torch import nn

import anylatent as al
from anylatent.core.nn.attention import attend
from anylatent.core.nn.layers import zero
from anylatent.core.testing.guests import Recorder, check_sites
from anylatent.core.testing.networks import CONDITIONS, some_condition
from tests.core.toys import distance

SMALL = {
    "unet": {"channels": 32, "embedding": 64, "heads": 2},
    "dit": {"width": 64, "depth": 2},
    "transformer": {"width": 64, "depth": 2},
    "egnn": {"width": 32, "edge": 16, "depth": 2},
    "tensor_product": {"scalars": 16, "vectors": 8, "tensors": 4, "depth": 2},
}


def awake(network, seed=0):
    """Its zero-initialised layers get weights: an equality of zeros would show nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * noise / math.sqrt(max(1, parameter[0].numel())))
    return network.eval()


def made(name, conditions=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return awake(al.get("backbone", name)(conditions=conditions, **SMALL[name]))


def call(backbone, cond=None, guest=None):
    x = al.Noise.of(0, 4).like(al.testing.example(backbone.spec, dtype=torch.float32))
    return backbone(x, torch.tensor([-2.0, 0.0, 1.0, 3.0]), cond, guest=guest)


class Temporal(al.Guest):
    """After each site a residual branch of its own, which starts at zero."""

    def __init__(self, sites, layout):
        super().__init__()
        chosen = [site for site in sites if site.layout == layout]
        self.names = {site.name: str(i) for i, site in enumerate(chosen)}
        layer = lambda w: nn.Sequential(nn.Linear(w, w), nn.SiLU(), zero(nn.Linear(w, w)))  # noqa: E731
        self.layers = nn.ModuleDict({self.names[s.name]: layer(s.width) for s in chosen})

    def after(self, site, h, embedding, mask):
        if site.name not in self.names:
            return h
        layer = self.layers[self.names[site.name]]
        if site.layout == "tokens":
            return h + layer(h)
        return h + layer(h.movedim(1, -1)).movedim(-1, 1)


class Control(al.Guest):
    """A trainable copy that reads a hint, and zero-initialised projections of what passes in it."""

    def __init__(self, backbone, hint):
        super().__init__()
        self.copy, self.hint = copy.deepcopy(backbone), hint
        self.out = nn.ModuleList(zero(nn.Linear(s.width, s.width)) for s in backbone.sites)
        self.first = nn.Linear(1, 1)
        self.features = None

    def begin(self, x, c_noise, cond):
        seen = Recorder()
        hinted = x.map(
            lambda z: z + self.first(self.hint)[: len(z)].reshape(-1, *[1] * (z.ndim - 1))
        )
        self.copy(hinted, c_noise, cond, guest=seen)
        twin = copy.copy(self)
        twin.features = {site.name: h for site, h, _ in seen.seen}
        twin.place = {site.name: i for i, site in enumerate(self.copy.sites)}
        return twin

    def after(self, site, h, embedding, mask):
        own, layer = self.features[site.name], self.out[self.place[site.name]]
        if site.layout == "tokens":
            return h + layer(own)
        return h + layer(own.movedim(1, -1)).movedim(-1, 1)


def guests(backbone):
    yield Temporal(backbone.sites, backbone.sites[0].layout)
    yield Control(backbone, torch.tensor([[0.5], [1.0], [-1.0], [2.0]]))


@pytest.mark.parametrize("name", SMALL)
def test_a_guest_that_starts_at_zero_starts_as_the_base_and_alone_learns(name):
    """Bit-equal at first; after a few steps all of the guest has moved and nothing of the base."""
    base = made(name, CONDITIONS).requires_grad_(False)
    cond = some_condition(CONDITIONS, 4)
    plain = call(base, cond)
    for guest in guests(base):
        hosting = al.Hosting(base, guest.requires_grad_(True))
        assert distance(call(hosting, cond), plain) == 0
        before = {key: value.clone() for key, value in hosting.state_dict().items()}
        target = al.Noise.of(5, 4).like(plain)
        optimiser = torch.optim.Adam(guest.parameters(), lr=1e-3)
        for _ in range(4):
            optimiser.zero_grad()
            call(hosting, cond).mse(target).mean().backward()
            optimiser.step()
        moved = {k for k, v in hosting.state_dict().items() if not torch.equal(v, before[k])}
        own = {
            f"guest.{key}"
            for key, p in guest.named_parameters()
            if p.grad is not None and bool(p.grad.any())  # what the copy's end reads has none
        }
        assert moved == own and len(own) >= len(list(guest.parameters())) - 12
        assert distance(call(base, cond), plain) == 0


def test_a_temporal_guest_moves_as_a_whole():
    base = made("unet").requires_grad_(False)
    guest = Temporal(base.sites, "map")
    hosting, optimiser = al.Hosting(base, guest), torch.optim.Adam(guest.parameters(), lr=1e-3)
    before = copy.deepcopy(guest.state_dict())
    for _ in range(4):
        optimiser.zero_grad()
        call(hosting).mse(al.Noise.of(5, 4).like(call(base))).mean().backward()
        optimiser.step()
    assert all(not torch.equal(value, before[key]) for key, value in guest.state_dict().items())


@pytest.mark.parametrize("name", ["unet", "dit", "transformer"])
def test_guests_nest_and_the_inner_one_is_asked_first(name):
    base, order = made(name), []

    class Named(al.Guest):
        def __init__(self, name, factor, shift):
            super().__init__()
            self.name, self.factor, self.shift = name, factor, shift

        def after(self, site, h, embedding, mask):
            order.append(self.name)
            return self.factor * h + self.shift * h.sin()

        def attend(self, site, q, k, v, mask, attend):
            order.append(f"{self.name} attends")
            return attend(q, k, v, mask)

    inner, outer = Named("inner", 1.5, 0.1), Named("outer", 0.8, -0.2)
    both = call(al.Hosting(al.Hosting(base, inner), outer))
    first = [word for word in order if "attends" not in word][:2]
    assert first == ["inner", "outer"]
    asked = [word for word in order if "attends" in word][:2]
    assert asked == ["outer attends", "inner attends"]  # from without, to how the inner one does

    class One(al.Guest):
        def after(self, site, h, embedding, mask):
            h = 1.5 * h + 0.1 * h.sin()
            return 0.8 * h - 0.2 * h.sin()

    assert distance(both, call(al.Hosting(base, One()))) < 1e-4
    assert distance(both, call(al.Hosting(al.Hosting(base, outer), inner))) > 1e-4


@pytest.mark.parametrize("name", ["unet", "dit", "transformer"])
def test_attention_written_out_is_the_fused_one(name):
    class Explicit(al.Guest):
        def __init__(self):
            super().__init__()
            self.maps = {}

        def attend(self, site, q, k, v, mask, attend):
            scores = q @ k.mT / q.shape[-1] ** 0.5
            if mask is not None:
                scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
            weights = scores.softmax(-1).nan_to_num()
            self.maps[site.name] = weights
            return weights @ v

    base, cond, guest = made(name, CONDITIONS), some_condition(CONDITIONS, 4), Explicit()
    plain = call(base, cond)
    found = call(base, cond, guest)
    scale = max(float(x.detach().abs().max()) for x in plain.parts.values())
    assert distance(found, plain) / scale < 1e-5
    assert set(guest.maps) == {site.name for site in base.sites if site.attends}
    assert any("cross" in site for site in guest.maps)


def test_queries_that_are_asked_of_a_guest_are_those_of_the_fused_attention():
    q, k, v = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    weights = (q @ k.mT / 8**0.5).softmax(-1)
    assert torch.allclose(attend(q, k, v), weights @ v, atol=2e-6)


def test_the_decoder_of_pictures_has_sites():
    autoencoder = awake(al.get("autoencoder", "conv")(channels=16, blocks=1, heads=2))
    z = al.Noise.of(0, 3).like(autoencoder.spec.blank(3))
    spec = al.LatentSpec({"z": al.Field((3, 32, 32))})
    decoded = lambda guest: spec.wrap({"z": autoencoder.decode(z, guest).tensor})  # noqa: E731
    check_sites(autoencoder, decoded, z)
    guest = Temporal(autoencoder.sites, "map")
    assert distance(decoded(guest), decoded(None)) == 0
    assert all(site.embedding == 0 for site in autoencoder.sites)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_without_a_guest_keeps_its_names(name):
    backbone = made(name)
    hosting = al.Hosting(backbone, al.Guest())
    assert set(hosting.state_dict()) == {f"backbone.{key}" for key in backbone.state_dict()}


def test_what_has_no_sites_hosts_nobody():
    from tests.core.toys import PointNet

    with pytest.raises(ValueError, match="PointNet has no sites"):
        al.Hosting(PointNet(al.testing.SPECS["molecule"]), al.Guest())


class TestContract:
    """`check_sites` sees what it should."""

    def network(self, change):
        base = made("dit")
        blocks = base.blocks

        class Broken:
            sites = base.sites

        broken = Broken()
        broken.sites, forward = change(base, blocks)
        x = al.Noise.of(0, 4).like(al.testing.example(base.spec, dtype=torch.float32))
        check_sites(broken, forward, x)

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ("missing", "passed"),
            ("width", "said"),
            ("attends", "attends at"),
            ("idle", "idle guest"),
            ("deaf", "reaches nothing"),
        ],
    )
    def test_a_broken_network_is_told(self, kind, message):
        from dataclasses import replace

        def change(base, blocks):
            sites, plain = list(base.sites), call(base)

            def forward(guest):
                if kind == "idle" and guest is not None:
                    return 1.001 * call(base, guest=guest)
                found = call(base, guest=guest)
                return plain if kind == "deaf" else found

            if kind == "missing":
                return sites[:-1], forward
            if kind == "width":  # of the site as the network knows it
                base.sites = [replace(sites[0], width=sites[0].width + 1), *sites[1:]]
            if kind == "attends":
                base.sites = [*sites[:-1], replace(sites[-1], attends=True)]
            return base.sites, forward

        with pytest.raises(AssertionError, match=message):
            self.network(change)


@pytest.mark.parametrize(
    ("site", "shape", "masked"),
    [("map", (4, 6), False), ("map", (4, 6, 3), True), ("tokens", (4, 3, 2, 6), False)],
)
def test_what_passes_has_the_layout_that_its_site_says(site, shape, masked):
    """Maps have an axis at least and no mask, tokens exactly one."""

    class Network:
        sites = (al.Site("only", 6, site),)

    def call(guest):
        h = torch.ones(shape)
        if guest is not None:
            h = guest.after(Network.sites[0], h, None, torch.ones(4, 6) > 0 if masked else None)
        return x * float(h.mean())

    x = al.LatentSpec({"z": al.Field((2,))}).wrap({"z": torch.ones(4, 2)})
    with pytest.raises(AssertionError, match="site only: shape"):
        check_sites(Network(), call, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "dit", "transformer"])
def test_it_compiles_whole_with_a_guest_and_without(name):
    base = made(name)
    for network in (base, al.Hosting(base, Temporal(base.sites, base.sites[0].layout))):
        compiled = torch.compile(network, fullgraph=True)
        assert distance(call(compiled), call(network)) < 1e-4
