"""Equivariance of encoder, decoder and backbone, and two forms of pairs that are one."""

import functools
import itertools

import pytest
import torch

import anylatent as al
from anylatent.core.solvers import Adaptive
from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.autoencoder import GeoLDM
from anylatent.modalities.molecule.backbone import EGNNBackbone
from anylatent.modalities.molecule.egnn import RadialBasis
from anylatent.modalities.molecule.pairs import DensePairs, ListedPairs, faster

SIZES = (7, 3, 9, 1)
TIGHT = 1e-10


def awake(module, seed=0):
    """Every parameter random, so that nothing hides behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.double)
    return module.double().eval()


def rotation(seed, mirror):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.double)).Q
    return q * (-1 if mirror == (torch.linalg.det(q) > 0) else 1)


def small(**settings):
    return awake(EGNNBackbone(width=32, edge=16, depth=3, **settings))


def latent(spec, padded=None):
    blank = spec.blank(len(SIZES), SIZES, dtype=torch.double, padded=padded)
    return al.Noise.of(3, len(SIZES)).like(blank)


def turned(z, q):
    return z.replace(x=z["x"] @ q.T)


def gap(a, b):
    return max(float((a[name] - b[name]).detach().abs().max()) for name in a.parts)


def batch(dtype=torch.double, padding=0):
    generator = torch.Generator().manual_seed(1)
    count = max(SIZES) + padding
    mask = torch.arange(count) < torch.tensor(SIZES)[:, None]
    x = torch.zeros(len(SIZES), count, 3, dtype=dtype)
    x[mask] = torch.randn(sum(SIZES), 3, generator=generator, dtype=torch.double).to(dtype)
    x = x - x.sum(1, keepdim=True) / mask.sum(1)[:, None, None]
    element, charge = torch.zeros(x.shape[:2]).long(), torch.zeros(x.shape[:2]).long()
    element[mask] = torch.randint(0, 5, (sum(SIZES),), generator=generator)
    charge[mask] = torch.randint(-1, 2, (sum(SIZES),), generator=generator)
    columns = {"x": torch.where(mask[..., None], x, 0), "mask": mask, "element": element}
    return columns | {"charge": charge, "atoms": mask.sum(1)}


@pytest.mark.parametrize("mirror", (False, True))
@pytest.mark.parametrize("pairs", ("dense", "list"))
def test_the_backbone_turns_with_its_input(pairs, mirror):
    backbone = small(pairs=pairs)
    z, c_noise = latent(backbone.spec), torch.tensor([0.3, -1.0, 2.0, 0.0]).double()
    q = rotation(5, mirror)
    out, there = backbone(z, c_noise), backbone(turned(z, q), c_noise)
    assert gap(turned(out, q), there) < TIGHT
    assert float(out["x"].abs().max()) > 1e-2 and float(out["h"].abs().max()) > 1e-2


def test_the_backbone_does_not_mind_the_order_of_atoms():
    backbone, c_noise = small(), torch.zeros(1).double()
    z = al.Noise.of(3, 1).like(backbone.spec.blank(1, [9], dtype=torch.double))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    moved = z.map(lambda x: x[:, order])
    assert gap(backbone(z, c_noise).map(lambda x: x[:, order]), backbone(moved, c_noise)) < TIGHT


def test_padding_changes_nothing_and_dense_pairs_are_listed_pairs():
    dense, listed = small(pairs="dense"), small(pairs="list")
    c_noise = torch.tensor([0.3, -1.0, 2.0, 0.0]).double()
    short, long = latent(dense.spec), latent(dense.spec, padded=16)
    out = dense(short, c_noise)
    assert gap(out, listed(short, c_noise)) < TIGHT
    wide = dense(long, c_noise)
    assert gap(out, wide.map(lambda x: x[:, : max(SIZES)])) < TIGHT


def test_gradients_of_dense_and_listed_pairs_agree():
    found = []
    for pairs in ("dense", "list"):
        backbone = small(pairs=pairs)
        out = backbone(latent(backbone.spec, padded=11), torch.ones(4).double())
        out.dot(out).sum().backward()
        found.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 20
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * float(a.abs().max()))


def test_pairs_against_plain_loops():
    mask = torch.arange(4) < torch.tensor([4, 2])[:, None]
    node = torch.randn(2, 4, 3, dtype=torch.double) * mask[..., None]
    for pairs in (DensePairs(mask, torch.double), ListedPairs(mask)):
        delta = pairs.difference(node)
        weight = torch.full_like(delta[..., :1], 0.5)
        summed = pairs.gather(pairs.total(node, torch.zeros_like(delta)), weight)
        spread = pairs.spread(delta, weight)
        for b, count in enumerate((4, 2)):
            for i in range(count):
                others = [j for j in range(count) if j != i]
                total = sum(0.5 * (node[b, i] + node[b, j]) for j in others)
                apart = sum(0.5 * (node[b, i] - node[b, j]) for j in others)
                assert torch.allclose(summed[b, i], total)
                assert torch.allclose(spread[b, i], apart)


@pytest.mark.parametrize("mirror", (False, True))
def test_encoder_and_decoder_turn_with_the_molecule(mirror):
    autoencoder, q = awake(GeoLDM(charges=(-1, 0, 1), width=32, edge=16)), rotation(9, mirror)
    columns = batch()
    posterior = autoencoder.encode(columns)
    there = autoencoder.encode({**columns, "x": columns["x"] @ q.T})
    assert gap(turned(posterior.mean, q), there.mean) < TIGHT
    assert gap(posterior.log_std, there.log_std) < TIGHT
    z = posterior.sample(al.Noise.of(0, len(SIZES)))
    mask = columns["mask"]
    x, element, charge = autoencoder._decode(z["x"], z["h"], mask)
    x2, element2, charge2 = autoencoder._decode(z["x"] @ q.T, z["h"], mask)
    assert float((x @ q.T - x2).abs().max()) < TIGHT
    assert float((element - element2).abs().max()) < TIGHT
    assert float((charge - charge2).abs().max()) < TIGHT


def test_the_encoder_does_not_see_where_the_molecule_is():
    autoencoder, columns = awake(GeoLDM(charges=(-1, 0, 1), width=32, edge=16)), batch()
    away = torch.where(columns["mask"][..., None], columns["x"] + torch.tensor([3.0, -7, 1]), 0)
    first, second = autoencoder.encode(columns), autoencoder.encode({**columns, "x": away})
    assert gap(first.mean, second.mean) < TIGHT


def test_padding_changes_no_loss():
    autoencoder = awake(GeoLDM(charges=(-1, 0, 1), width=32, edge=16))
    losses = [
        autoencoder.loss(batch(padding=padding), al.Noise.of(0, len(SIZES)), 0)[0]
        for padding in (0, 5)
    ]
    for name in losses[0]:
        assert torch.allclose(losses[0][name], losses[1][name], atol=TIGHT), name
    assert set(losses[0]) == {"position", "element", "charge", "kl"}


@pytest.mark.parametrize("solver", al.names("solver"))
def test_the_whole_chain_turns_with_the_noise(solver):
    schedule = al.get("schedule", "edm")()
    backbone, q = small(), rotation(2, True)
    denoiser = al.Preconditioned(backbone, schedule, al.get("prediction", "edm")())
    if isinstance(al.get("solver", solver)(), Adaptive):  # hundreds of steps of random weights
        denoiser = al.testing.GaussianDenoiser(schedule, 0.0, 0.5)  # would amplify the last digit
    times = al.get("grid", "log_snr")()(schedule, 6)
    ends = []
    for turn in (torch.eye(3).double(), q):
        noise = Turned(turn)
        blank = backbone.spec.blank(len(SIZES), SIZES, dtype=torch.double)
        start = float(schedule.sigma(times[0])) * noise.like(blank)
        ends.append(al.solve(al.get("solver", solver)(), denoiser, schedule, start, times, noise))
    size = max(1.0, float(ends[0]["x"].abs().max()))  # random weights may amplify
    assert gap(turned(ends[0], q), ends[1]) < 1e-9 * size
    assert float(ends[0]["x"].sum(1).abs().max()) < 1e-12 * size * max(SIZES)


class Turned(al.Noise):
    """Noise whose positions are rotated."""

    def __init__(self, turn):
        super().__init__(list(range(len(SIZES))))
        self.turn = turn

    def _fills(self, z, starts):  # of draws and of paths
        return [turned(drawn, self.turn) for drawn in super()._fills(z, starts)]


def test_the_faster_form_is_chosen_by_size_and_padding():
    def mask(*sizes):
        return torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]

    assert faster(mask(18, 18, 17)) == "dense"
    assert faster(mask(29, 9, 12)) == "list"
    assert faster(mask(60, 60)) == "list"
    assert faster(mask(1)) == "list" and faster(mask(2)) == "dense"
    backbone = small()
    z = al.Noise.of(3, 1).like(backbone.spec.blank(1, [300], dtype=torch.double))
    with torch.no_grad():
        assert al.testing.in_subspace(backbone(z, torch.zeros(1).double()))


def test_the_radial_basis_resolves_bonds():
    basis = RadialBasis(32)
    near = basis(torch.tensor([[1.34], [1.39], [1.54]]))
    for a, b in itertools.combinations(near, 2):
        assert float((a - b).abs().max()) > 0.05


def test_contracts_with_other_settings():
    factory = functools.partial(EGNNBackbone, width=32, edge=16, depth=2, pairs="list")
    al.testing.check_backbone(factory)


def test_a_wrong_form_of_pairs_is_an_error():
    with pytest.raises(ValueError, match="dense.*list"):
        EGNNBackbone(pairs="sparse")


def test_what_is_restored_is_what_is_decoded_before_it_is_made_molecules():
    """In the modality's own space, turning with the molecule, and with slopes."""
    elements, columns = ("H", "C", "N", "O", "F"), batch()
    modality = al.get("modality", "molecule")(elements, (0,), [[9, 1]])
    autoencoder = awake(GeoLDM(elements, (0,), modality=modality, width=32, edge=16))
    posterior = autoencoder.encode({**columns, "charge": 0 * columns["charge"]})
    z = posterior.mean.map(lambda x: x.detach().requires_grad_())
    found = autoencoder.restore(z)
    assert al.testing.in_subspace(found) and found.spec == modality.data_space.spec
    lowered, decoded = modality.data_space.lower(found), autoencoder.decode(z)
    for one, other in zip(lowered, decoded, strict=True):
        assert torch.equal(one.z, other.z) and torch.equal(one.x, other.x)
    q = rotation(9, mirror=True)
    assert gap(turned(found, q), autoencoder.restore(turned(posterior.mean, q))) < TIGHT
    slopes = torch.autograd.grad(found.dot(found).sum(), list(z.parts.values()))
    several = columns["mask"].clone()
    several[SIZES.index(1)] = False  # a single atom is always at the centre
    assert all(bool((slope.norm(dim=-1)[several] > 0).all()) for slope in slopes)
    with pytest.raises(UserError, match="build it with one"):
        GeoLDM(elements, (0,), width=32, edge=16).restore(z)


def test_expected_charges_are_their_mean():
    space = al.get("modality", "molecule")(("H", "C"), (-1, 0, 1), [[2, 1]]).data_space
    element = torch.tensor([[[0.25, 0.75], [1.0, 0.0]]])
    charge = torch.tensor([[[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]]])
    found = space.expected(torch.zeros(1, 2, 3), element, charge, torch.ones(1, 2).bool())
    wanted = torch.tensor([[[0.25, 0.75, 0.6 * 0.4], [1.0, 0.0, -0.5 * 0.4]]])
    assert torch.allclose(found["h"], wanted)
