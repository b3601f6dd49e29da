"""Log-likelihoods of networks: brute-force Jacobians, symmetries, the two traces."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.likelihood.flow import draw_probe, log_likelihood
from anylatent.core.nn import attention
from tests.core.densities import RHO, data, mixture, network, normal, pushed
from tests.core.toys import alone, distance


# ---- any network ------------------------------------------------------------------------------
def jacobian(function, x, basis, eps=1e-4):
    """d function/dx in an orthonormal basis, shape (dim, dim), by central differences."""
    moved = [function(x + h * basis) for h in (eps, -eps)]
    columns = (moved[0] - moved[1]) / (2 * eps)
    flat = [torch.cat([z[n].flatten(1) for n in z.parts], 1) for z in (columns, basis)]
    return flat[1] @ flat[0].T


def test_the_volume_is_the_determinant_of_the_inversion():
    """Of a network that is no gradient of anything, on 4 padded and centred points."""
    spec = al.LatentSpec({"x": al.Field((None, 2), centred=True), "h": al.Field((None, 1))})
    sizes = [(4 - 1) * 2, 4]
    one = spec.blank(1, [4], dtype=torch.float64, padded=5)
    dim = sum(sizes)
    many = spec.blank(dim, [4] * dim, dtype=torch.float64, padded=5)
    # columns that span the centred points, orthonormal, and the 4 valid features
    centre = torch.linalg.svd(torch.eye(4).double() - 0.25)[0][:, :3]
    basis = many.zeros()
    for i in range(6):
        basis["x"][i, :4, i % 2] = centre[:, i // 2]
    for i in range(4):
        basis["h"][6 + i, i, 0] = 1
    x0 = al.Noise.of(2, 1).like(one)
    denoiser = network(spec)
    found = log_likelihood(denoiser, denoiser.schedule, x0, noise=None, tolerance=1e-10)

    def invert(x):
        noise = al.Noise.of(0, dim)
        return log_likelihood(denoiser, denoiser.schedule, x, noise=noise, steps=100).x1

    spread = many.map(lambda z, x: x.expand_as(z), x0)
    matrix = jacobian(invert, spread, basis)
    assert float((matrix - matrix.T).abs().max()) > 1e-3
    wanted = float(torch.linalg.slogdet(matrix)[1])
    assert abs(wanted) > 0.5
    assert float(found.log_volume) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("noise", (None, 5))
@pytest.mark.parametrize("steps", (None, 10))
def test_neither_padding_nor_neighbours_change_a_sample(noise, steps):
    spec = al.testing.SPECS["molecule"]
    denoiser = network(spec)
    x0, _ = data(al.testing.example(spec), 0.0, 1.0)
    long, _ = data(al.testing.example(spec, padded=14), 0.0, 1.0)

    def run(x, positions):
        drawn = None if noise is None else al.Noise.of(noise, positions)
        return log_likelihood(denoiser, denoiser.schedule, x, noise=drawn, steps=steps)

    joint, padded = run(x0, range(4)), run(long, range(4))
    assert float((joint.log_p - padded.log_p).abs().max()) < 1e-10
    for i in range(4):
        lonely = run(alone(x0, i), [i])
        assert float((lonely.log_p - joint.log_p[i]).abs()) < 1e-10
        assert distance(lonely.x1, alone(joint.x1, i)) < 1e-10
        assert int(lonely.evaluations) == int(joint.evaluations[i])
    assert al.testing.in_subspace(joint.x1)
    # an unlike neighbour, for which the flow is much harder
    wild = joint.x1.map(lambda x: torch.cat([x[:1], 30 * x[1:2]]) if len(x) > 1 else x)
    wild = al.Latent(
        {n: torch.cat([x0[n][:1], wild[n][1:2]]) for n in x0.parts},
        {n: mask[:2] for n, mask in x0.masks.items()},
        spec,
    )
    beside = run(wild, range(2))
    assert float((beside.log_p[0] - joint.log_p[0]).abs()) < 1e-10


class Springs(al.Denoiser):
    """An E(3)-equivariant, non-linear denoiser of centred points: attraction by distance."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, t, cond=None):
        alpha, sigma = self.schedule.coefficients(t)
        size = (alpha**2 + sigma**2).sqrt()
        points, mask = (x / size)["x"], x.masks["x"]
        arrows = points[:, :, None] - points[:, None]
        pairs = (mask[:, :, None] & mask[:, None])[..., None]
        pull = torch.where(pairs, arrows * torch.exp(-arrows.pow(2).sum(-1, keepdim=True)), 0)
        out = x.replace(
            x=0.3 * pull.sum(2), h=torch.tanh((x / size)["h"]) * pull.norm(dim=(2, 3))[..., None]
        )
        return al.combine((alpha / size**2, x), (sigma / size, out))


def test_turning_mirroring_and_permuting_points_change_nothing():
    spec, schedule = al.testing.SPECS["molecule"], al.get("schedule", "flow")()
    x0, _ = data(al.testing.example(spec), 0.0, 1.0)
    denoiser = Springs(schedule)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.manual_seed(1)).double())[0]
    order = torch.tensor([1, 0, *range(2, 9)])  # two points that all samples have
    found = log_likelihood(denoiser, schedule, x0, noise=None)
    plain = normal(x0, x0.zeros(), 1.0)
    assert float((found.log_p - plain).abs().max()) > 1  # it's not trivial
    for sign in (1, -1):
        turned = x0.replace(x=sign * x0["x"] @ rotation)
        other = log_likelihood(denoiser, schedule, turned, noise=None)
        assert float((other.log_p - found.log_p).abs().max()) < 1e-9
        assert distance(other.x1, found.x1.replace(x=sign * found.x1["x"] @ rotation)) < 1e-9
    moved = x0.map(lambda x: x[:, order])
    other = log_likelihood(denoiser, schedule, moved, noise=None)
    assert float((other.log_p - found.log_p).abs().max()) < 1e-9


# ---- the trace --------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "key"), [("dit", "image"), ("transformer", "text")])
def test_the_exact_trace_of_attention_that_is_normed(name, key, monkeypatch):
    """All of its derivatives at once, by norms whose backward pass is written out, and torch's."""
    spec, found = al.LatentSpec({"z": al.Field((3, 4, 4) if key == "image" else (5, 4))}), []
    for norm in (attention.RMSNorm, torch.nn.RMSNorm):
        monkeypatch.setattr(attention, "RMSNorm", norm)
        torch.manual_seed(0)
        made = al.get("backbone", name)(spec=spec, width=16, depth=1, heads=2)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        schedule = al.get("schedule", "vp")()
        denoiser = al.Preconditioned(made, schedule, al.get("prediction", "velocity")())
        x0 = al.Noise.of(1, 2).like(spec.blank(2))
        nats = log_likelihood(denoiser, schedule, x0, noise=None, steps=3).log_volume
        assert bool(nats.isfinite().all()) and bool(nats.any())
        found.append(nats)
    assert torch.allclose(*found, rtol=1e-4)


def test_probes_are_white_on_the_subspace_and_of_fixed_length():
    spec = al.testing.SPECS["molecule"]
    blank = spec.blank(20000, [4] * 20000, dtype=torch.float64, padded=5)
    probe = draw_probe(blank, al.Noise.of(0, 20000))
    assert al.testing.in_subspace(probe)
    for name, dim in (("x", 9), ("h", 20)):
        part = probe.take([name])
        assert torch.allclose(part.dot(part), torch.full((20000,), dim).double(), rtol=1e-12)
    assert set(probe["h"][:, :4].unique().tolist()) == {-1.0, 1.0}
    flat = torch.cat([probe["x"].flatten(1), probe["h"].flatten(1)], 1)
    centre = torch.eye(5) - 1 / 4
    centre[4], centre[:, 4] = 0, 0
    valid = torch.diag(torch.tensor([1.0, 1, 1, 1, 0]))
    wanted = torch.block_diag(torch.kron(centre, torch.eye(3)), torch.kron(valid, torch.eye(5)))
    products = flat[:, :, None] * flat[:, None]
    error = products.std(0) / math.sqrt(20000) + 1e-9
    # 800 correlated entries: 5 standard errors are passed by chance once in 2000 seeds
    assert float(((products.mean(0) - wanted) / error).abs().max()) < 5


def test_hutchinson_is_unbiased_and_averages():
    schedule, spec = al.get("schedule", "flow")(), al.testing.SPECS["molecule"]
    exact, _, _ = mixture(schedule, spec, lengths=[4])
    one, _ = data(spec.blank(1, [4], dtype=torch.float64), 0.0, 0.8)
    wanted = float(log_likelihood(exact, schedule, one, noise=None, steps=16).log_p)
    count = 600
    x0 = spec.blank(count, [4] * count, dtype=torch.float64).map(lambda z, x: x.expand_as(z), one)
    variances = []
    for probes in (1, 4):
        noise = al.Noise.of((3, probes), count)
        found = log_likelihood(exact, schedule, x0, noise=noise, probes=probes, steps=16).log_p
        spread = float(found.std())
        assert abs(float(found.mean()) - wanted) < 3 * spread / math.sqrt(count)
        variances.append(spread**2)
    assert variances[0] > 0.01
    assert 3 < variances[0] / variances[1] < 5.3


def test_probes_meet_a_diagonal_field_exactly():
    """Random signs: a width for each coordinate costs no variance where nothing is centred."""
    schedule, spec = al.get("schedule", "cosine")(), al.testing.SPECS["shape"]
    blank = spec.blank(3, dtype=torch.float64)
    widths = blank.map(lambda x: 0.2 + 0.1 * torch.arange(x.shape[-1]).double().expand_as(x))
    exact = al.testing.GaussianDenoiser(schedule, 0.5, widths)
    x0, mean = data(blank)
    scaled = (x0 - mean).map(lambda x, w: x / (w**2 + RHO**2).sqrt(), widths)
    volume = widths.map(lambda w: 0.5 * (w**2 + RHO**2).log())
    total = sum(part.flatten(1).sum(1) for part in volume.parts.values())
    wanted = normal(scaled, x0.zeros(), 1.0) - total
    for noise in (None, al.Noise.of(1, 3)):
        found = log_likelihood(exact, schedule, x0, noise=noise, tolerance=1e-8).log_p
        assert torch.allclose(found, wanted, rtol=1e-6)


# ---- networks in practice ---------------------------------------------------------------------
def test_parameters_may_or_may_not_require_gradients():
    spec = al.testing.SPECS["text"]
    denoiser = network(spec, dtype=torch.float32)
    x0, _ = data(al.testing.example(spec, dtype=torch.float32), 0.0, 1.0)
    results = []
    for trained in (True, False):
        denoiser.requires_grad_(trained)
        for mode in (torch.no_grad, torch.enable_grad):
            with mode():
                noise = al.Noise.of(0, 4)
                found = log_likelihood(denoiser, denoiser.schedule, x0, noise=noise, probes=2)
            assert not found.log_p.requires_grad and not found.x1["z"].requires_grad
            results.append(found.log_p)
    assert all(parameter.grad is None for parameter in denoiser.parameters())
    assert all(torch.equal(other, results[0]) for other in results)
    assert results[0].dtype == torch.float64 and found.x1.dtype == torch.float32


@pytest.mark.parametrize("key", ("image", "molecule"))
def test_single_precision_is_enough_for_a_tolerance_of_1e_5(key):
    schedule = al.get("schedule", "vp")()
    x0, mean = data(al.testing.example(al.testing.SPECS[key]))
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    single, noise = x0.to(torch.float32), al.Noise.of(0, 4)
    found = log_likelihood(exact, schedule, single, noise=noise, tolerance=1e-5)
    gap = (found.log_p - pushed(schedule, single.to(torch.float64), mean, 0.3)) / x0.dim
    assert float(gap.abs().max()) < 2e-5


def test_a_single_centred_point_has_features_alone():
    spec, schedule = al.testing.SPECS["molecule"], al.get("schedule", "flow")()
    blank = spec.blank(2, [1, 3], dtype=torch.float64)
    x0, mean = data(blank)
    exact = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    for noise in (None, al.Noise.of(0, 2)):
        found = log_likelihood(exact, schedule, x0, noise=noise, tolerance=1e-7).log_p
        assert torch.allclose(found, pushed(schedule, x0, mean, 0.3), rtol=1e-5)
